"""Where a weight enters the gradient or the loss, and traces of all ranks.

May import: the engine, callbacks.step, callbacks.trainer.
"""
