"""Callbacks for libraries that train without a Lightning Trainer, one module each.

Importing this package imports none of these libraries.

May import: diagnostics, verdict, weights, looks, errors.
"""
