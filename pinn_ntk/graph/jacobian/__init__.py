"""From live residuals to the factors of their Jacobian, certified; `empirical_ntk` is the way in.

May import: graph, kernel, errors; not graph.terms.
"""
