"""What the scripts of ``examples/`` share: networks, points, the base of a problem, figures.

A script writes down its PDE, its points and its reference, and takes the rest from here.
"""
