"""What a running step tells: terms, taps, residuals of a user's function, parameters.

May import: the engine, callbacks.trainer.
"""
