"""How other people lay out rows, points, components and networks: right, and fast where said so."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev, vmap

from pinn_ntk import NTK, NTKWarning, empirical_ntk, reference_ntk
from pinn_ntk.analysis.distinct_rows import distinct_rows
from pinn_ntk.graph.jacobian import row_factors
from pinn_ntk.kernel.factors import Outer
from pinn_ntk.kernel.parts import Parts
from tests.asserts import assert_near, backward_passes
from tests.networks import stack
from tests.operators import grad, points, u_xx

pytestmark = pytest.mark.usefixtures("float64")

N = 8


class Networks(nn.Module):
    """Networks and trained numbers, made as a case asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.numbers = nn.ModuleList(), nn.ParameterList()

    def __call__(self, inputs: int, outputs: int) -> nn.Module:
        self.made.append(stack([inputs, 6, 6, outputs]))
        return self.made[-1]

    def number(self, *shape: int) -> nn.Parameter:
        self.numbers.append(nn.Parameter(torch.rand(shape)))
        return self.numbers[-1]


def x(count: int = N, dim: int = 1, seed: int = 0) -> Tensor:
    return points(count, dim, seed)


def all_gradients(net: nn.Module, at: Tensor) -> Tensor:
    """d u_i / d x_j, (N, i, j)."""
    u = net(at)
    return torch.stack([grad(u[:, i], at) for i in range(u.shape[1])], 1)


def laplacians(net: nn.Module, at: Tensor) -> Tensor:
    u = net(at)
    return torch.stack([grad(grad(c.sum(), at)[..., 0], at)[..., 0] for c in u.unbind(-1)], -1)


def time_derivative_with_hard_start(net: nn.Module, at: Tensor) -> Tensor:
    start = torch.cat([torch.zeros_like(at[:, :1]), at[:, 1:]], 1)
    return grad(net(at) - net(start) + at[:, 1:].sin(), at)[:, :1]


def filled(u: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    out = torch.zeros(len(mask), 1)
    out[mask], out[~mask] = u, v
    return out


def several_networks(new: Networks) -> dict[str, Callable[[], Tensor]]:
    u, v = new(1, 1), new(1, 1)
    at, half = x(), x()[:, 0] > 0
    return {
        "sum_of_two": lambda: u_xx(u, at) + u(at) * v(at),
        "system_joined": lambda: torch.cat([u_xx(u, at) - v(at), u_xx(v, at) + u(at)]),
        "system_stacked": lambda: torch.stack([u(at) - v(at), grad(v(at), at)], -1),
        "ensemble_stacked": lambda: torch.stack([new(1, 1)(at) for _ in range(5)]),
        "ensemble_in_columns": lambda: torch.cat([u_xx(new(1, 1), at) for _ in range(5)], 1) - 1,
        "ensemble_mean": lambda: torch.stack([u(at), v(at)]).mean(0),
        "domains_by_where": lambda: torch.where(half[:, None], u_xx(u, at), u_xx(v, at)),
        "domains_joined": lambda: torch.cat([u(at[half]), v(at[~half])]) - 1,
        "domains_written_into": lambda: filled(u(at[half]), v(at[~half]), half),
        "partition_of_unity": lambda: grad(at.sigmoid() * u(at) + (1 - at.sigmoid()) * v(at), at),
        "gated": lambda: (new(1, 2)(at).softmax(1) * torch.cat([u(at), v(at)], 1)).sum(1),
        "interface": lambda: torch.cat([u(at) - v(at), grad(u(at), at) - grad(v(at), at)]),
        "separable": lambda: u(at) * v(x(5, seed=1)).T - 1,
    }


def joined_terms(new: Networks) -> dict[str, Callable[[], Tensor]]:
    u, at = new(1, 1), x()
    integral = lambda: u(x(9, seed=3)).mean()  # noqa: E731
    return {
        "unequal": lambda: torch.cat([u_xx(u, at), u(x(5, seed=1)), u(x(1, seed=2))]),
        "unequal_and_weighted": lambda: torch.cat([3 * u_xx(u, at)[:, 0], u(x(5, seed=1))[:, 0]]),
        "scaled_afterwards": lambda: 3 - torch.cat([u_xx(u, at), u(at[:3])]) * torch.rand(N + 3, 1),
        "of_the_same_points": lambda: torch.cat([u_xx(u, at), u(at)[:1], u(at)[-1:]]),
        "scalars": lambda: torch.stack([u(at).mean() - 1, u(at).square().mean(), integral()]),
        "with_an_integral": lambda: torch.cat([u_xx(u, at)[:, 0], integral()[None] - 1]),
        "point_by_point": lambda: torch.stack([u_xx(u, x(1, seed=i))[0, 0] for i in range(20)]),
        "row_by_row": lambda: torch.stack([2 * r[0] for r in [*u_xx(u, at), *u(at)]]),
        "windows": lambda: torch.cat([u_xx(u, x(3, seed=i)) * 0.5**i for i in range(4)]),
        "one_part": lambda: torch.stack([u_xx(u, at)]),
        "numbers_too": lambda: torch.cat([u_xx(u, at), new.number(1, 1) - 1]),
        "padded": lambda: nn.functional.pad(u_xx(u, at), (0, 0, 1, 1)),
    }


def components(new: Networks) -> dict[str, Callable[[], Tensor]]:
    u, at = new(2, 3), x(N, 2)
    batches = x(N, 2).detach().view(2, 4, 2).requires_grad_()
    return {
        "jacobian": lambda: all_gradients(u, at),
        "strain": lambda: all_gradients(u, at)[:, :2] + all_gradients(u, at)[:, :2].mT,
        "flat": lambda: new(1, 7)(x()).flatten() - 1,
        "flat_by_component": lambda: new(1, 7)(x()).T.reshape(-1),
        "rows_of_a_list": lambda: torch.stack([c * c for c in all_gradients(u, at)[:, 0].T]),
        "batches": lambda: u(batches) - 1,
        "laplacians_of_batches": lambda: laplacians(u, batches),
        "channels_first": lambda: u(batches).permute(2, 0, 1),
        "channels_second": lambda: u(batches).movedim(-1, 1) - 0.5,
        "vmap_jacrev": lambda: vmap(jacrev(u))(at.detach()),
        "vmap_hessian": lambda: vmap(lambda p: hessian(lambda q: u(q)[0])(p).trace())(at.detach()),
        "vmap_stack": lambda: vmap(lambda p: torch.stack([u(p)[0] * u(p)[1], u(p)[2]]))(
            at.detach()
        ),
        "complex_parts": lambda: torch.view_as_real(torch.view_as_complex(new(2, 2)(at)).square()),
        "stages_of_runge_kutta": lambda: u(at) - all_gradients(u, at)[..., 0] @ torch.rand(3, 3).T,
        "norms": lambda: u(at).norm(dim=1) - 1,
        "chosen": lambda: u(at).gather(1, torch.arange(N)[:, None] % 3),
    }


def rows_that_share_points(new: Networks) -> dict[str, Callable[[], Tensor]]:
    u, at = new(1, 1), x()
    i, j = torch.triu_indices(5, 5, 1)
    grid = x(16, 2).detach().view(4, 4, 2).requires_grad_()
    return {
        "mean_removed": lambda: u_xx(u, at) - u_xx(u, at).mean(),
        "mean_of_components": lambda: new(1, 3)(at) - new.made[-1](at).mean(0),
        "standardised": lambda: (u(at) - u(at).mean()) / u(at).std(),
        "over_the_largest": lambda: u(at) / u(at).max(),
        "times_a_mean": lambda: u_xx(u, at) + u(at) * u(at).mean(),
        "gauge": lambda: u(at) - u(torch.zeros(1, 1)),
        "hard_start": lambda: time_derivative_with_hard_start(new(2, 1), x(N, 2)),
        "differences": lambda: u(at).diff(dim=0),
        "second_differences": lambda: u(at)[2:] - 2 * u(at)[1:-1] + u(at)[:-2],
        "differences_of_fixed_points": lambda: u(at.detach()).diff(dim=0) / 0.1,
        "rolled": lambda: u(at) - u(at).roll(1, 0),
        "mirrored": lambda: u(at) - u(at).flip(0),
        "stencil": lambda: (
            (y := new(2, 1)(grid)[..., 0])[2:, 1:-1] + y[:-2, 1:-1] - 2 * y[1:-1, 1:-1]
        ),
        "pairs": lambda: (y := u(x(5)))[i] - y[j],
        "periodic_pairs": lambda: (y := u(at))[:4] - y[4:],
        "repeated": lambda: u(at).repeat_interleave(3, 0) - torch.rand(3 * N, 1),
        "drawn": lambda: u(at)[torch.tensor([0, 0, 1, 7, 3, 3, 3])],
        "spread": lambda: u(at).expand(-1, 4) - torch.rand(N, 4),
        "several_targets": lambda: u(at) - torch.rand(N, 5),
        "tiled": lambda: u(at).tile(2, 1),
        "coefficients_of_batches": lambda: (
            u(x(6).view(2, 3, 1)) * new(3, 1)(torch.rand(2, 3))[:, None]
        ),
        "masked": lambda: u_xx(u, at)[torch.arange(N) % 3 > 0],
        "numbers_of_the_points": lambda: u_xx(u, at) * new.number(N, 1),
        "sorted": lambda: u(at).sort(0).values - 1,
    }


def beyond(new: Networks) -> dict[str, Callable[[], Tensor]]:
    a, b, at = new(1, 3), new(1, 3), x(10)
    return {
        "running_sum": lambda: new(1, 1)(at).cumsum(0),
        "separable_of_rank_3": lambda: a(at) @ b(x(7, seed=1)).T,
    }


FAST = (several_networks, joined_terms, components, rows_that_share_points)
Case = tuple[Callable[[Networks], dict[str, Callable[[], Tensor]]], str]


def cases(*groups: Callable[[Networks], dict[str, Callable[[], Tensor]]]) -> list[Case]:
    torch.set_default_dtype(torch.float64)
    try:
        return [(group, name) for group in groups for name in group(Networks())]
    finally:
        torch.set_default_dtype(torch.float32)


def built(case: Case) -> tuple[Tensor, Networks]:
    torch.manual_seed(0)
    group, name = case
    new = Networks()
    return group(new)[name](), new


def checked(residual: Tensor, params: Networks) -> NTK:
    kernel = empirical_ntk(residual, params)
    expected = reference_ntk({"r": residual}, params)["r", "r"]
    assert_near(kernel.diagonal("residual"), expected.diagonal(), 1e-12, "diagonal")
    assert_near(kernel["residual"], expected, 1e-12, "K")
    return kernel


@pytest.mark.parametrize("case", cases(*FAST), ids=lambda case: case[1])
def test_layouts_are_read_without_a_word(case: Case):
    kernel = checked(*built(case))  # a warning would be an error
    assert kernel.jacobian("residual").fallbacks == {}


@pytest.mark.parametrize("case", cases(beyond), ids=lambda case: case[1])
def test_others_are_right_and_say_so(case: Case):
    residual, params = built(case)
    with pytest.warns(NTKWarning, match="computed one by one"):
        checked(residual, params)


# --- Components cost what the same rows cost as separate terms


def written_into(parts: list[Tensor]) -> Tensor:
    out = torch.zeros(len(parts[0]), len(parts))
    for column, part in enumerate(parts):
        out[:, column] = part[:, 0]
    return out


Join = Callable[[list[Tensor]], Tensor]
JOINS: dict[str, Join] = {
    "last": lambda parts: torch.cat(parts, 1),
    "first": lambda parts: torch.stack([p[:, 0] for p in parts]),
    "stacked": lambda parts: torch.stack(parts, -1),
    "one_after_another": torch.cat,
    "interleaved": lambda parts: torch.cat(parts, 1).flatten(),
    "flat_from_the_network": lambda parts: torch.stack(parts).permute(1, 0, 2).reshape(-1),
    "in_turn_permuted": lambda parts: torch.cat(parts)[torch.arange(len(parts) * N).flip(0)],
    "weighted": lambda parts: torch.cat(parts, 1) * torch.arange(1.0, 1 + len(parts)),
    "written_into": written_into,
}


def laplacian_parts(count: int) -> tuple[list[Tensor], nn.Module]:
    net, at = stack([2, 6, 6, count]), x(N, 2)
    u = net(at)
    gradients = [grad(u[:, i], at) for i in range(count)]
    return [sum(grad(g[:, k], at)[:, k : k + 1] for k in range(2)) for g in gradients], net


def sites(kernel: NTK) -> dict[str, list[tuple[int, int]]]:
    """Parameter name -> sites and rows of each part."""
    found: dict[str, list[tuple[int, int]]] = {}
    for term in kernel.terms:
        for name, factor in kernel.jacobian(term).factors.items():
            parts = [p.factor for p in factor.parts] if isinstance(factor, Parts) else [factor]
            outer = [part for part in parts if isinstance(part, Outer)]
            found.setdefault(name, []).extend((len(o.left), o.count) for o in outer)
    return {name: sorted(counts) for name, counts in found.items() if counts}


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
def test_components_have_the_sites_of_separate_terms(
    join: Join, count: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pinn_ntk.graph.jacobian.row_factors.SMALL", 0)  # or they are joined
    torch.manual_seed(0)
    parts, net = laplacian_parts(count)
    separate = empirical_ntk({str(i): part for i, part in enumerate(parts)}, net)
    together = checked(join(parts), net)
    assert sites(together) == sites(separate)


def test_components_take_a_pass_over_their_own_graph(monkeypatch: pytest.MonkeyPatch):
    parts, net = laplacian_parts(10)
    residual = torch.cat(parts, 1)
    passes = backward_passes(monkeypatch)
    empirical_ntk(residual, net, certify=False)
    assert len(passes) == 10 + 3 * 10  # and three over the join alone for each


def test_small_parts_with_as_many_sites_are_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts, net = laplacian_parts(3)
        kernel = checked(torch.cat(parts, 1), net)
    assert sites(kernel)["2.weight"] == [(sites(kernel)["2.weight"][0][0], 3 * N)]


def contracted(x: Tensor, W: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    u = torch.einsum("ni,ijk,k->nj", x, W, v).sum(1)
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0][:, 0], u


@pytest.mark.parametrize("join", [torch.cat, torch.stack])
def test_parts_may_see_one_weight_as_matrices_of_several_shapes(join: Callable[..., Tensor]):
    W, v = torch.randn(2, 6, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    x = torch.randn(5, 2, requires_grad=True)
    residual = join(contracted(x, W, v))
    kernel = empirical_ntk(residual, [W, v])
    truth = reference_ntk(residual, [W, v])["residual", "residual"]
    assert_near(kernel["residual"], truth, 1e-12, "K")
    rank = kernel.spectrum("residual", method="accurate").rank
    assert rank == int(torch.linalg.matrix_rank(truth))
    assert distinct_rows(kernel.jacobian("residual")) == len(truth) - 4  # u_x is that of any point


def test_what_torch_goes_through_as_a_whole_only_is_taken_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
):
    """As a double derivative of irfft behind complex weights: a node at which it cannot stop."""

    def unreadable(*_: object, **__: object) -> None:
        raise RuntimeError("INTERNAL ASSERT FAILED")

    monkeypatch.setattr(row_factors, "read_sites", unreadable)
    net, x = stack([2, 4, 1]).double(), torch.randn(6, 2)
    with pytest.warns(NTKWarning, match="cannot stop a backward pass"):
        kernel = empirical_ntk(net(x), net)
    truth = reference_ntk(net(x), net)["residual", "residual"]
    assert_near(kernel["residual"], truth, 1e-12, "K")


def test_complex_weights_have_no_rule_and_say_so():
    w, x = torch.randn(2, 4, 2, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    spectrum = x.to(torch.complex128) @ torch.view_as_complex(w)
    residual = torch.fft.irfft(spectrum, n=6).tanh().sum(1)
    for _ in range(2):
        residual = torch.autograd.grad(residual.sum(), x, create_graph=True)[0][:, 0]
    with pytest.warns(NTKWarning, match="no rule for a parameter at input 1 of Mm"):
        kernel = empirical_ntk(residual, [w])
    truth = reference_ntk(residual, [w])["residual", "residual"]
    assert_near(kernel["residual"], truth, 1e-12, "K")
