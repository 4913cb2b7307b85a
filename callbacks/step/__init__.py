"""What a running step tells: terms, taps, residuals of a user's function, looks.

May import: the engine, callbacks.trainer.
"""
