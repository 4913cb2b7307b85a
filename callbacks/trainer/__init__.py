"""The only place that knows Lightning's insides: its packages, steps, loggers, checkpoints.

May import: the engine.
"""
