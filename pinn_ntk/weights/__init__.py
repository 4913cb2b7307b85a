"""How loss weights follow from a look at a step: one file a rule, and weights that a loss holds.

May import: looks, analysis, graph, kernel, taps, errors.
"""
