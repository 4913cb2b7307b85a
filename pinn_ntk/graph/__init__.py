"""Reading a live autograd graph: its nodes, a walk along them, parameters and residuals.

May import: kernel, errors.
"""
