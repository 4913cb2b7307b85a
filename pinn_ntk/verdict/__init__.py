"""Why a PINN does not train: the cause, the evidence, and what to do.

May import: looks, analysis, graph, graph.terms, graph.jacobian, kernel, errors.
"""
