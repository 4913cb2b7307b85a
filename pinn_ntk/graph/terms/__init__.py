"""From a scalar loss to its terms: residuals, what is applied to them, and their weights.

May import: graph, errors.
"""
