"""From live residuals to the factors of their Jacobian, certified; see `empirical_ntk`.

May import: graph, kernel, errors.
"""
