"""How loss weights follow from the kernel: one file a rule, and weights that a loss holds.

May import: looks, analysis, kernel, taps, errors.
"""
