"""Kernels of infinitely wide networks, and of the operators of a PINN applied to them."""
