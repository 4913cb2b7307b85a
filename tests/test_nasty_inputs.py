"""Inputs that are unkind on purpose, and at the end the honest list of what is not supported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pinn_ntk import NTKWarning, ResidualError, empirical_ntk, reference_ntk
from pinn_ntk.graph.reference import reference_jacobian
from tests.asserts import assert_certified, assert_is_ntk_of, assert_near, assert_psd, checked_ntk
from tests.idioms import Labelled
from tests.networks import NETWORKS, FourierFeatures, stack
from tests.operators import grad, laplacian, points

N = 6

pytestmark = pytest.mark.usefixtures("float64")

Params = list[Tensor]
mlp = partial(NETWORKS["mlp"], 1, 1)


def of_u_xx(change: Callable[[Tensor], Tensor], x: Tensor | None = None) -> tuple[Tensor, Params]:
    """u_xx + u passed through ``change``."""
    net = mlp()
    x = points(N, 1) if x is None else x.requires_grad_()
    u = net(x)
    return change(laplacian(u, x) + u), list(net.parameters())


def growing(decades: int) -> Tensor:
    """A column (N, 1) from 10^-decades to 10^decades."""
    return torch.logspace(-decades, decades, N)[:, None]


def of(net: nn.Module, residual: Callable[[nn.Module, Tensor], Tensor]) -> tuple[Tensor, Params]:
    return residual(net, points(N, 1)), list(net.parameters())


def rank_one() -> tuple[Tensor, Params]:
    w = nn.Parameter(torch.ones(1))
    return torch.arange(1.0, N + 1) * w, [w]


def with_parameters_scaled(scale: float) -> tuple[Tensor, Params]:
    net = mlp()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(scale)
    return of(net, lambda net, x: net(x).flip(0))


def parameters_of_all_sizes() -> tuple[Tensor, Params]:
    """u = a 1e8 x + b 1e-8 sin(x) + c."""
    a, b, c = (nn.Parameter(torch.tensor([v])) for v in (1e-8, 1e8, 0.0))
    x = points(N, 1)
    return a * 1e8 * x + b * 1e-8 * x.sin() + c, [a, b, c]


def shared_by_terms_and_rows() -> tuple[Tensor, Params]:
    net, gain = mlp(), nn.Parameter(torch.tensor(2.0))
    x = points(N, 1)
    return torch.cat([gain * net(x), net(x.detach() + 1) / gain]), [*net.parameters(), gain]


def high_frequency() -> tuple[Tensor, Params]:
    net = nn.Sequential(FourierFeatures(1, trained=True), stack([6, 5, 1]))
    with torch.no_grad():
        net[0].frequencies *= 50
    return of(net, lambda net, x: laplacian(net(x), x))


CASES: dict[str, Callable[[], tuple[Tensor, Params]]] = {
    "rank_one": rank_one,
    "more_rows_than_parameters": lambda: of(nn.Linear(1, 1), lambda net, _: net(points(20, 1))),
    "all_points_equal": lambda: of_u_xx(lambda r: r, torch.zeros(N, 1)),
    "points_in_pairs": lambda: of_u_xx(lambda r: r, torch.rand(3, 1).repeat(2, 1)),
    "points_nearly_equal": lambda: of_u_xx(lambda r: r, torch.linspace(0, 1e-6, N)[:, None]),
    "one_row": lambda: of_u_xx(lambda r: r, torch.rand(1, 1)),
    "one_row_0d": lambda: of_u_xx(lambda r: r.squeeze(), torch.rand(1, 1)),
    "two_rows": lambda: of_u_xx(lambda r: r, torch.rand(2, 1)),
    "zero_residual": lambda: of_u_xx(lambda r: r - r.detach()),
    "zero_jacobian": lambda: of_u_xx(lambda r: 0 * r),
    "some_rows_zero": lambda: of_u_xx(lambda r: r * torch.tensor([[1.0, 0, 0, 1, 0, 1]]).T),
    "rows_of_very_different_size": lambda: of_u_xx(lambda r: r * growing(12)),
    "such_rows_permuted": lambda: of_u_xx(lambda r: (r * growing(6))[[3, 1, 0, 5, 2, 4]]),
    "scale_1e-60": lambda: of_u_xx(lambda r: 1e-60 * r),
    "scale_1e-10": lambda: of_u_xx(lambda r: 1e-10 * r),
    "scale_1e15": lambda: of_u_xx(lambda r: 1e15 * r),
    "scale_1e60": lambda: of_u_xx(lambda r: 1e60 * r.flip(0)),
    "parameters_1e-6": lambda: with_parameters_scaled(1e-6),
    "parameters_1e6": lambda: with_parameters_scaled(1e6),
    "parameters_of_all_sizes": parameters_of_all_sizes,
    "dead_neurons": lambda: of(stack([1, 8, 1], nn.ReLU), lambda net, x: grad(net(x), x) + net(x)),
    "parameter_shared_by_rows": shared_by_terms_and_rows,
    "high_frequency": high_frequency,
    "strided": lambda: of_u_xx(lambda r: r[::2]),
    "not_contiguous": lambda: of_u_xx(lambda r: torch.stack([r, r * r], 2).squeeze(1).T),
    "expanded": lambda: of_u_xx(lambda r: r.expand(N, 3)),
    "expanded_in_front": lambda: of_u_xx(lambda r: r.squeeze(1).expand(3, N)),
    "leading_ones": lambda: of_u_xx(lambda r: r[None, :, None]),
    "subclass": lambda: of_u_xx(lambda r: r.as_subclass(Labelled)),
    "seen_twice": lambda: of_u_xx(lambda r: torch.cat([r, r])),
    "written_into": lambda: of_u_xx(
        lambda r: torch.zeros(2 * N, 1).index_copy(0, torch.arange(N), r)
    ),
    "slice_assigned": lambda: of_u_xx(lambda r: torch.zeros(N, 2).slice_scatter(r * r, 1, 0, 1)),
    "in_place": lambda: of_u_xx(lambda r: r.clone().mul_(3).add_(1)),
    "checkpointed": lambda: of_u_xx(lambda r: checkpoint(torch.sin, r, use_reentrant=False)),
    "through_numpy_and_back": lambda: of_u_xx(lambda r: r * torch.from_numpy(r.detach().numpy())),
}  # fmt: skip


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_kernel_is_right(build: Callable[[], tuple[Tensor, Params]]):
    residual, params = build()
    kernel = empirical_ntk({"pde": residual}, params)
    assert_is_ntk_of(kernel, {"pde": residual.as_subclass(Tensor)}, params, tol=1e-11)
    assert_certified(kernel)


def test_rank_and_noise_of_duplicated_points():
    residual, params = of_u_xx(lambda r: r, torch.rand(3, 1).repeat(4, 1))
    spectrum = empirical_ntk(residual, params).spectrum()
    assert len(spectrum.eigenvalues) == 12
    assert spectrum.rank <= 3


def test_a_parameter_shared_between_terms():
    net, gain = mlp(), nn.Parameter(torch.tensor([2.0]))
    residuals = {"a": gain * net(points(N, 1)), "b": net(points(4, 1, seed=1)) - gain}
    kernel = empirical_ntk(residuals, [*net.parameters(), gain])
    assert_is_ntk_of(kernel, residuals, [*net.parameters(), gain])
    assert_certified(kernel)


@pytest.mark.parametrize("order", ["as_given", "permuted"])
def test_five_thousand_rows(order: str, dtype: torch.dtype):
    rows, net = 5000, stack([1, 3, 1]).to(dtype)
    residual = net(points(rows, 1).detach().to(dtype))[:, 0]
    residual = residual[torch.randperm(rows)] if order == "permuted" else residual
    kernel = empirical_ntk(residual, net)
    assert max(kernel.certificate.values()) < 1e-5
    picked = torch.randint(rows, (12,))
    expected = reference_jacobian(residual[picked], net)
    tol = 1e-13 if dtype == torch.float64 else 1e-5
    assert_near(kernel.jacobian("residual").dense()[picked], expected, tol, "some rows of J")
    assert kernel.trace("residual") == pytest.approx(
        float(kernel.jacobian("residual").dense().square().sum()), rel=1e-12
    )


LOW = [(torch.float32, 2e-5), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)]
Make = Callable[[Tensor, Tensor], Tensor]
MADE: dict[str, Make] = {
    "in_order": lambda u, _: u,
    "permuted": lambda u, _: u[[3, 0, 5, 2, 1, 4]],
    "second_derivative": lambda u, x: laplacian(u, x) + u,
    "widened": lambda u, _: u.double() ** 2,
}


@pytest.mark.parametrize(("dtype", "tol"), LOW, ids=["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_models_of_low_precision(make: Make, dtype: torch.dtype, tol: float):
    net = mlp().to(dtype)
    x = points(N, 1).detach().to(dtype).requires_grad_()
    kernel = checked_ntk(make(net(x), x), net, tol, f"K of a model in {dtype}")
    assert_psd(kernel)
    assert kernel.certificate["residual", "residual"] <= tol


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e20], ids=str)
def test_float32_stays_on_the_fast_path(make: Make, scale: float):
    """No warning: a warning is an error here."""
    net = mlp().float()
    x = points(N, 1).detach().float().requires_grad_()
    checked_ntk(scale * make(net(x), x), net, 1e-4, "K of a float32 model")


@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_mixed_precision_in_one_graph():
    net = mlp().float()
    x = points(N, 1).detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(x)
    checked_ntk(low.double() + net(x), net, 5e-2, "K under autocast")


def test_a_gradient_that_is_not_finite_is_said():
    """|u|^(1/2) at u = 0 has a finite value and no derivative."""
    net = nn.Linear(1, 1, bias=False)
    residual = net(torch.tensor([[0.0], [1.0], [2.0]])).abs().sqrt()
    with pytest.warns(NTKWarning, match="the certificate is off by nan"):
        kernel = empirical_ntk(residual, net)
    assert not kernel["residual"][0, 0].isfinite()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite_is_refused_with_its_residual(bad: float):
    net = mlp()
    with torch.no_grad():
        net[2].weight[0, 0] = bad
        net[2].bias[:] = bad
    with pytest.raises(ResidualError, match="residual 'residual' holds NaN or inf in 6 of 6 rows"):
        empirical_ntk(net(points(N, 1)) * bad, net)


def in_two_parts() -> tuple[nn.Module, Tensor, Callable[[], Tensor]]:
    """A network, its first layer's values, and what makes the residual of them."""
    net = mlp()
    hidden = net[0](points(N, 1))
    return net, hidden, lambda: net[1:](hidden)


@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
@pytest.mark.parametrize("hooked", ["weight", "hidden"])
def test_hooks_on_tensors_are_part_of_the_gradient(hooked: str):
    net, hidden, residual = in_two_parts()
    (net[0].weight if hooked == "weight" else hidden).register_hook(lambda g: 3 * g)
    checked_ntk(residual(), net, 1e-13, "K with a hook")


def test_hooks_of_accumulation_are_not_run():
    net, ran = mlp(), []
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(ran.append)
    empirical_ntk(net(points(N, 1)), net)
    assert ran == []


# --- What is not supported


def not_supported(reason: str, raises: type[Exception] = AssertionError) -> pytest.MarkDecorator:
    return pytest.mark.xfail(reason=reason, strict=True, raises=raises)


@not_supported("autograd fills .grad of intermediate tensors that retain it")
def test_retained_gradients_stay_as_they_are():
    net, hidden, residual = in_two_parts()
    hidden.retain_grad()
    empirical_ntk(residual(), net)
    assert hidden.grad is None


@not_supported("hooks on intermediate tensors run once more at each backward pass")
def test_hooks_run_as_often_as_in_training():
    (net, hidden, residual), ran = in_two_parts(), []
    hidden.register_hook(lambda _: ran.append(1))
    empirical_ntk(residual(), net)
    assert ran == []


@not_supported("a hook that mixes rows is seen by the certificate only")
def test_a_mixing_hook_without_the_certificate():
    net, hidden, residual = in_two_parts()
    hidden.register_hook(lambda g: g - g.mean(0))
    checked_ntk(residual(), net, 1e-10, "K", certify=False)


@not_supported("reentrant checkpointing hides the parameters from the graph: a kernel of zeros")
def test_reentrant_checkpointing():
    net, x = mlp(), points(N, 1)
    expected = reference_ntk(net(x), net)["residual", "residual"]
    kernel = empirical_ntk(checkpoint(net, x, use_reentrant=True), net)
    assert_near(kernel["residual"], expected, 1e-10, "K")


class Hidden(torch.autograd.Function):
    """A layer that fetches its weight from elsewhere instead of taking it as an argument."""

    weight: Tensor

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x @ Hidden.weight

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        Hidden.weight.grad = torch.ones_like(Hidden.weight)
        return gradient @ Hidden.weight.T


@not_supported("a weight that a custom function does not take as an argument is not in the graph")
def test_a_weight_behind_the_graphs_back():
    Hidden.weight = nn.Parameter(torch.ones(1, 1))
    x = points(N, 1)
    kernel = empirical_ntk(Hidden.apply(x), [Hidden.weight])
    assert_near(kernel["residual"], (x @ x.T).detach(), 1e-10, "K")


@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_sparse_embeddings():
    table = nn.Embedding(4, 3, sparse=True)
    kernel = empirical_ntk(table(torch.tensor([0, 1, 1, 3])).sum(1), table)
    same = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    assert_near(kernel["residual"], 3 * same.double(), 1e-12, "K")


@not_supported("complex parameters", raises=ValueError)
def test_complex_parameters():
    w = nn.Parameter(torch.ones(2, dtype=torch.cdouble))
    empirical_ntk((torch.rand(N, 2).to(torch.cdouble) @ w).abs(), [w])


@not_supported("a scalar residual in inference mode", raises=ValueError)
def test_a_scalar_in_inference_mode():
    net = mlp()
    residual = net(points(1, 1)).squeeze()
    with torch.inference_mode():
        empirical_ntk(residual, net)
