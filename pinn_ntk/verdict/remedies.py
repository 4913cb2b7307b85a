"""Remedies that rules in several files have in common."""

EARLY_FIRST = "Train early times first: causal weights, or windows in time one by one."
