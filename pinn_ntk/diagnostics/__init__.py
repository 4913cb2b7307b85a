"""One question about training a file: its formula, tags, sentences, figure and state.

May import: looks, weights, limit, analysis, graph, kernel, tensorboard, errors.
"""
