"""Derivatives of a network with respect to its points, on the graph."""

from __future__ import annotations

import torch
from torch import Tensor


def derivative(y: Tensor, points: Tensor) -> Tensor:
    """dy/dpoints of the shape of ``points``, where row i of y depends on point i alone."""
    return torch.autograd.grad(y, points, torch.ones_like(y), create_graph=True)[0]


def gradient(y: Tensor, points: Tensor) -> tuple[Tensor, ...]:
    """The derivatives of y (N, 1) along the inputs of ``points`` (N, n_in), each (N, 1)."""
    grad = derivative(y, points)
    return tuple(grad[:, i : i + 1] for i in range(grad.shape[1]))


def tracked(points: Tensor) -> Tensor:
    """A copy of the points with respect to which a network can be differentiated."""
    return points.clone().requires_grad_()
