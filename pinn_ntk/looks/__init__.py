"""One measured step: what diagnostics, weighting rules and callbacks read of it.

May import: analysis, graph, graph.terms, graph.jacobian, kernel, errors.
"""
