"""Differential operators, derivative styles and layouts as data.

`OPERATORS`  id -> residual of one PDE for a network and its points
`SECOND`     id -> one way of writing u_xx
`LAYOUTS`    id -> dict of residuals whose rows are arranged as real code arranges them

Points are (N, in_dim), network values (N, out_dim); residuals take whatever shape the code gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from tests.networks import WIDTH

N_PDE, N_BC = 7, 4


def points(count: int, dim: int, seed: int = 0) -> Tensor:
    """Random points (count, dim) in [-1, 1], float64, with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, dim, generator=generator, dtype=torch.float64)
    return (2 * share - 1).requires_grad_()


def grad(u: Tensor, x: Tensor, style: str = "sum") -> Tensor:
    """du_i / dx_i (N, d) of a column u (N, 1): the two usual ways to seed ``autograd.grad``."""
    if style == "sum":
        return torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    return torch.autograd.grad(u, x, grad_outputs=torch.ones_like(u), create_graph=True)[0]


def laplacian(u: Tensor, x: Tensor, style: str = "sum") -> Tensor:
    """Sum over the axes of the pure second derivatives (N, 1)."""
    gradient = grad(u, x, style)
    return sum(grad(gradient[:, k : k + 1], x, style)[:, k : k + 1] for k in range(x.shape[1]))  # type: ignore[return-value]


SecondDerivative = Callable[[nn.Module, Tensor], Tensor]


def by_transform(
    second: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]],
) -> SecondDerivative:
    """u_xx (N, 1) from a torch.func transform of the network at one point, mapped over points."""
    return lambda net, x: vmap(second(lambda point: net(point).squeeze()))(x).reshape(-1, 1)


def jvp_of_jvp(net: nn.Module, x: Tensor) -> Tensor:
    """u_xx (N, 1) by forward mode over forward mode, all points at once."""
    along = torch.ones_like(x)
    return jvp(lambda y: jvp(net, (y,), (along,))[1], (x,), (along,))[1]


SECOND: dict[str, SecondDerivative] = {
    "sum": lambda net, x: laplacian(net(x), x, "sum"),
    "ones_like": lambda net, x: laplacian(net(x), x, "ones_like"),
    "vmap_jacrev_jacrev": by_transform(lambda u: jacrev(jacrev(u))),
    "vmap_hessian": by_transform(hessian),
    "vmap_jacfwd_jacfwd": by_transform(lambda u: jacfwd(jacfwd(u))),
    "jvp_jvp": jvp_of_jvp,
}


Residual = Callable[..., Tensor]
"""(net, x, style, **coefficients) -> live residual.

style is "sum" or "ones_like"; for u_xx any key of `SECOND`.
"""


@dataclass(frozen=True)
class Operator:
    in_dim: int
    out_dim: int
    residual: Residual
    coefficients: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of trained numbers that the residual takes by name (inverse problems)."""


def u_xx(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    return SECOND[style](net, x)


def wave(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    u_t, u_x = grad(net(x), x, style).split(1, dim=1)
    return grad(u_t, x, style)[:, :1] - 4 * grad(u_x, x, style)[:, 1:]


def burgers(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    u = net(x)
    u_t, u_x = grad(u, x, style).split(1, dim=1)
    return u_t + u * u_x - 0.01 / torch.pi * grad(u_x, x, style)[:, 1:]


def allen_cahn(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    u = net(x)
    u_t, u_x = grad(u, x, style).split(1, dim=1)
    return u_t - 1e-4 * grad(u_x, x, style)[:, 1:] + 5 * u**3 - 5 * u


def kdv(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    u = net(x)
    u_t, u_x = grad(u, x, style).split(1, dim=1)
    u_xx = grad(u_x, x, style)[:, 1:]
    return u_t + 6 * u * u_x + grad(u_xx, x, style)[:, 1:]


def biharmonic(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    return laplacian(laplacian(net(x), x, style), x, style)


def navier_stokes_parts(
    net: nn.Module, x: Tensor, style: str = "sum"
) -> tuple[Tensor, Tensor, Tensor]:
    """Momentum in x and y and continuity of a steady flow (u, v, p), each (N, 1), Re = 100."""
    u, v, p = net(x).split(1, dim=1)
    (u_x, u_y), (v_x, v_y), (p_x, p_y) = (grad(w, x, style).split(1, dim=1) for w in (u, v, p))
    momentum_x = u * u_x + v * u_y + p_x - 0.01 * laplacian(u, x, style)
    momentum_y = u * v_x + v * v_y + p_y - 0.01 * laplacian(v, x, style)
    return momentum_x, momentum_y, u_x + v_y


def navier_stokes(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    return torch.cat(navier_stokes_parts(net, x, style), dim=1)  # (N, 3)


def variable_coefficient(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    conductivity = 1 + 0.5 * torch.sin(2 * x)
    return grad(conductivity * grad(net(x), x, style), x, style)


def inverse_burgers(net: nn.Module, x: Tensor, style: str = "sum", **trained: Tensor) -> Tensor:
    u = net(x)
    u_t, u_x = grad(u, x, style).split(1, dim=1)
    diffusion = torch.exp(trained["viscosity"]) * grad(u_x, x, style)[:, 1:]
    return u_t + trained["speed"] * u * u_x - diffusion + trained["source"]


def integral_equation(net: nn.Module, x: Tensor, style: str = "sum") -> Tensor:
    """u(x_i) - int_0^1 exp(x_i y) u(y) dy by the midpoint rule: every row uses every node."""
    nodes = (torch.arange(5, dtype=x.dtype).unsqueeze(1) + 0.5) / 5  # (5, 1)
    return net(x) - torch.exp(x @ nodes.T) @ net(nodes) / 5


OPERATORS: dict[str, Operator] = {
    "u": Operator(1, 1, lambda net, x, style="sum": net(x)),
    "grad_u": Operator(2, 1, lambda net, x, style="sum": grad(net(x), x, style)),
    "u_xx": Operator(1, 1, u_xx),
    "laplace_2d": Operator(2, 1, lambda net, x, style="sum": laplacian(net(x), x, style)),
    "eikonal": Operator(2, 1, lambda net, x, style="sum": grad(net(x), x, style).norm(dim=1) - 1),
    "wave": Operator(2, 1, wave),
    "burgers": Operator(2, 1, burgers),
    "allen_cahn": Operator(2, 1, allen_cahn),
    "kdv": Operator(2, 1, kdv),
    "biharmonic": Operator(2, 1, biharmonic),
    "navier_stokes": Operator(2, 3, navier_stokes),
    "variable_coefficient": Operator(1, 1, variable_coefficient),
    "inverse_burgers": Operator(
        2, 1, inverse_burgers, {"speed": (), "viscosity": (1,), "source": (1, 1)}
    ),
    "integral": Operator(1, 1, integral_equation),
}


# --- Layouts: how rows, points and components are arranged


@dataclass(frozen=True)
class Layout:
    residuals: Callable[[nn.Module], dict[str, Tensor]]
    path: str = "fast"
    in_dim: int = 1
    out_dim: int = 1


def with_bc(
    pde: Callable[[nn.Module], Tensor], in_dim: int = 1
) -> Callable[[nn.Module], dict[str, Tensor]]:
    """The term ``pde`` beside boundary values at other points."""
    return lambda net: {"pde": pde(net), "bc": net(points(N_BC, in_dim, seed=1))}


def of_u_xx(
    rearrange: Callable[[Tensor], Tensor], count: int = N_PDE
) -> Callable[[nn.Module], dict[str, Tensor]]:
    """u_xx (N, 1) at ``count`` points, passed through ``rearrange``."""
    return with_bc(lambda net: rearrange(u_xx(net, points(count, 1))))


def one_call(net: nn.Module) -> dict[str, Tensor]:
    """One network call on all points, both terms slices of what it gives."""
    x = points(N_PDE + N_BC, 1)
    u = net(x)
    return {"pde": laplacian(u, x)[:N_PDE], "bc": u[N_PDE:]}


def same_points(net: nn.Module) -> dict[str, Tensor]:
    """Two terms of the same points and the same network call."""
    x = points(N_PDE, 1)
    u = net(x)
    return {"pde": laplacian(u, x) + u, "data": u - x.detach() ** 2}


def chained_terms(net: nn.Module) -> dict[str, Tensor]:
    """One residual made from another."""
    x = points(N_PDE, 1)
    first = net(x) - 1
    return {"pde": laplacian(first, x), "bc": first}


def separate_coordinates(net: nn.Module) -> Tensor:
    """Heat equation with t and x as leaves of their own, joined for the call."""
    t, x = points(N_PDE, 1), points(N_PDE, 1, seed=1)
    u = net(torch.cat([t, x], dim=1))
    return grad(u, t) - grad(grad(u, x), x)


def row_of_points(net: nn.Module) -> Tensor:
    """Points given as (1, N), transposed for the call; the residual is (1, N)."""
    x = points(N_PDE, 1).detach().T.requires_grad_()
    u = net(x.T).T
    return grad(grad(u, x), x)


def three_axes(net: nn.Module) -> Tensor:
    """Points on a grid (2, 3, 1)."""
    x = points(6, 1).detach().reshape(2, 3, 1).requires_grad_()
    return grad(grad(net(x), x), x)


def duplicated(net: nn.Module) -> Tensor:
    x = points(3, 1).detach().repeat(3, 1).requires_grad_()
    return laplacian(net(x), x)


def masked(net: nn.Module) -> Tensor:
    x = points(N_PDE + 2, 1)
    return u_xx(net, x)[x[:, 0] < x[:, 0].median()]


def broadcast_unknown(net: nn.Module) -> Tensor:
    """(N, 1) - (N,), both from the network: entry (i, j) depends on the points i and j."""
    x = points(6, 1)
    return laplacian(net(x), x) - net(x).squeeze(1)


def of_flow(join: Callable[[tuple[Tensor, ...]], Tensor]) -> Layout:
    """The three Navier-Stokes residuals joined in some other way than (N, 3)."""
    return Layout(
        with_bc(lambda net: join(navier_stokes_parts(net, points(N_PDE, 2))), 2), "any", 2, 3
    )


LAYOUTS: dict[str, Layout] = {
    "column": Layout(of_u_xx(lambda r: r)),
    "flat": Layout(of_u_xx(lambda r: r.squeeze(1))),
    "row": Layout(of_u_xx(lambda r: r.T)),
    "single_row": Layout(of_u_xx(lambda r: r, count=1)),
    "scalar": Layout(of_u_xx(lambda r: r.squeeze(), count=1)),
    "rows_equal_width": Layout(of_u_xx(lambda r: r, count=WIDTH)),
    "one_call": Layout(one_call),
    "same_points": Layout(same_points),
    "chained_terms": Layout(chained_terms),
    "permuted": Layout(of_u_xx(lambda r: r[[3, 0, 6, 2, 5, 1, 4]])),
    "reversed": Layout(of_u_xx(lambda r: r.flip(0))),
    "masked": Layout(with_bc(masked)),
    "separate_coordinates": Layout(with_bc(separate_coordinates, 2), in_dim=2),
    "row_of_points": Layout(with_bc(row_of_points)),
    "three_axes": Layout(with_bc(three_axes), "any"),
    "rows_repeated": Layout(of_u_xx(lambda r: r[[0, 0, 1, 2, 2, 2, 3]]), "any"),
    "duplicated_points": Layout(with_bc(duplicated)),
    "broadcast_data": Layout(
        of_u_xx(lambda r: r - torch.linspace(-1, 1, 6, dtype=r.dtype), count=6), "any"
    ),
    "broadcast_unknown": Layout(with_bc(broadcast_unknown), "any"),
    "components_first": of_flow(lambda parts: torch.stack(parts).squeeze(2)),  # (3, N)
    "components_in_turn": of_flow(torch.cat),  # (3 N, 1)
    "components_interleaved": of_flow(lambda parts: torch.cat(parts, dim=1).flatten()),  # (3 N,)
    "mean_removed": Layout(of_u_xx(lambda r: r - r.mean())),
    "running_sum": Layout(of_u_xx(lambda r: r.cumsum(0)), "generic"),
    "zero_value": Layout(of_u_xx(lambda r: r - r.detach())),
    "zero_jacobian": Layout(of_u_xx(lambda r: 0 * r), "any"),
    "scale_1e-10": Layout(of_u_xx(lambda r: 1e-10 * r)),
    "scale_1e+05": Layout(of_u_xx(lambda r: 1e5 * r)),
    "scale_1e+15": Layout(of_u_xx(lambda r: 1e15 * r)),
}
