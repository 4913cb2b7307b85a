"""The problem, and other ways to its kernel.

| symbol | meaning | shape |
| --- | --- | --- |
| N | points, one residual row each | |
| P | parameters | |
| r | u_xx of an MLP 1-[w]*3-1 with tanh | (N,) |
| J | d r / d theta | (N, P) |
| K | J J^T, contracted in float64 | (N, N) |

torch.func gets its best forms. vmap(jacrev) of the residual of one point is one; which way of
writing u_xx is fastest there differs from machine to machine and is tried on the spot. jacrev of
all N residuals at once (u_xx by the sum trick) does the same as `row_batched` and was 5 to 10 times
slower than vmap(jacrev) for w = 128, N = 256; products of the kernel with unit vectors (vjp, then
jvp) 8 times. The points of one chunk are as many as fit a Jacobian of `CHUNK_BYTES`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

Params: TypeAlias = dict[str, Tensor]
Scalar: TypeAlias = Callable[[Tensor], Tensor]
"""A function of one coordinate, () -> ()."""

CHUNK_BYTES = 2**25
"""Bytes that the Jacobian of one chunk of points may take (torch.func)."""
CHUNK_ROWS = 32
"""Rows in one batch of `row_batched`; fewer and more were slower."""
BLOCK_ENTRIES = 2**20
"""Entries of J that are converted to float64 and contracted at once by the lean forms."""


@dataclass(frozen=True)
class Problem:
    """A network and its points, (N, 1)."""

    model: nn.Sequential
    points: Tensor

    @property
    def parameters(self) -> int:
        """P."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def first(self, count: int) -> Problem:
        """The same network with its first points only."""
        return Problem(self.model, self.points[:count])

    def residual(self) -> Tensor:
        """u_xx, live, (N, 1)."""
        x = self.points.detach().requires_grad_()
        u = self.model(x)
        (u_x,) = torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x, x, torch.ones_like(u_x), create_graph=True)
        return u_xx


def make_problem(width: int, points: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """The same numbers in every dtype: drawn in float32, then converted."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Linear(1, width), nn.Tanh()),
            *(nn.Linear(width, width), nn.Tanh()),
            *(nn.Linear(width, width), nn.Tanh()),
            nn.Linear(width, 1),
        )
    x = torch.linspace(-1, 1, points, dtype=torch.float32)[:, None]
    return Problem(model.to(device, dtype), x.to(device, dtype))


def _jvp_jvp(u: Scalar, x: Tensor) -> Tensor:
    def u_x(x: Tensor) -> Tensor:
        return jvp(u, (x,), (torch.ones_like(x),))[1]

    return jvp(u_x, (x,), (torch.ones_like(x),))[1]


SECOND_DERIVATIVES: dict[str, Callable[[Scalar, Tensor], Tensor]] = {
    "grad(grad)": lambda u, x: grad(grad(u))(x),
    "jacfwd(jacrev)": lambda u, x: hessian(u)(x),
    "jvp(jvp)": _jvp_jvp,
}
"""Ways to write u_xx of one point."""


def torch_func_jacobian(problem: Problem, form: str, chunk: int) -> Params:
    """Jacobian by vmap(jacrev): parameter -> (N, *shape)."""

    def residual(params: Params, x: Tensor) -> Tensor:
        def u(x: Tensor) -> Tensor:
            return functional_call(problem.model, params, (x.reshape(1),)).reshape(())

        return SECOND_DERIVATIVES[form](u, x)

    params = {name: p.detach() for name, p in problem.model.named_parameters()}
    return vmap(jacrev(residual), (None, 0), chunk_size=chunk)(params, problem.points.flatten())


def torch_func_kernel(problem: Problem, form: str) -> Tensor:
    """K as the torch.func tutorial takes it: the whole Jacobian, contracted a parameter a time."""
    jacobian = torch_func_jacobian(problem, form, chunk_points(problem))
    count = len(problem.points)
    kernel = problem.points.new_zeros(count, count, dtype=torch.float64)
    while jacobian:
        rows = jacobian.popitem()[1].flatten(1).double()
        kernel.addmm_(rows, rows.mT)
    return kernel


def torch_func_kernel_lean(problem: Problem, form: str) -> Tensor:
    """K with each chunk of points copied into one buffer that is contracted block by block."""
    chunk, rows = chunk_points(problem), _buffer(problem)
    for part, out in zip(problem.points.split(chunk), rows.split(chunk), strict=True):
        jacobian = torch_func_jacobian(Problem(problem.model, part), form, chunk)
        torch.cat([j.flatten(1) for j in jacobian.values()], dim=1, out=out)
    return _contracted(rows)


def fastest_form(problem: Problem, repeats: int = 3) -> str:
    """Key of `SECOND_DERIVATIVES` that makes vmap(jacrev) fastest here, tried on one chunk."""
    trial = problem.first(chunk_points(problem))
    best: dict[str, float] = {}
    for form in list(SECOND_DERIVATIVES) * (repeats + 1):  # the first time around is a warm-up
        start = time.perf_counter()
        torch_func_jacobian(trial, form, len(trial.points))
        seconds = time.perf_counter() - start
        best[form] = min(seconds, best[form]) if form in best else float("inf")
    return min(best, key=best.__getitem__)


def row_batched(problem: Problem, residual: Tensor) -> Tensor:
    """K from a live residual, row by row in batches: one vector-Jacobian product a row."""
    leaves, rows = list(problem.model.parameters()), _buffer(problem)
    identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    for cotangents, out in zip(identity.split(CHUNK_ROWS), rows.split(CHUNK_ROWS), strict=True):
        options = {"retain_graph": True, "is_grads_batched": True, "allow_unused": True}
        cotangent = cotangents.view(-1, *residual.shape)
        gradients = torch.autograd.grad(residual, leaves, cotangent, **options)
        parts = [
            out.new_zeros(len(out), leaf.numel()) if gradient is None else gradient.flatten(1)
            for leaf, gradient in zip(leaves, gradients, strict=True)
        ]
        torch.cat(parts, dim=1, out=out)
    return _contracted(rows)


def chunk_points(problem: Problem) -> int:
    """Points whose Jacobian fits `CHUNK_BYTES`."""
    bytes_a_point = problem.parameters * problem.points.element_size()
    return max(1, min(len(problem.points), CHUNK_BYTES // bytes_a_point))


def _buffer(problem: Problem) -> Tensor:
    return problem.points.new_empty(len(problem.points), problem.parameters)


def _contracted(rows: Tensor) -> Tensor:
    kernel = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for block in rows.split(max(1, BLOCK_ENTRIES // len(rows)), dim=1):
        wide = block.double()
        kernel.addmm_(wide, wide.mT)
    return kernel
