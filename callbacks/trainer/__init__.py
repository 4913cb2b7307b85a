"""The only place that knows Lightning's insides: packages, steps, loggers, checkpoints.

May import: the engine.
"""
