"""Linear algebra of the kernel: factors of a Jacobian, blocks, spectra, rows. No autograd.

May import: errors.
"""
