"""What a kernel says of training: dynamics, modes, interference, rank, early stopping.

May import: graph, graph.terms, kernel, errors.
"""
