"""Memory of one measurement against its budget: every path, every stage, monitor and balancer.

What a plain backward pass of the same graph holds comes on top: training needs it as well.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from benchmarks.measure import peak_extra_memory
from pinn_ntk import empirical_ntk, look
from pinn_ntk.analysis.distinct_rows import distinct_rows
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.kernel.bounds import Bounds
from tests.asserts import assert_near
from tests.looks import ask
from tests.networks import stack
from tests.operators import grad
from tests.pinn import Pinn, same
from tests.zoo import make, train

BUDGET = 12 * 2**20
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rest = nn.Conv1d(1, 32, 3, padding=1), stack([64, 32, 1])

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.conv(x[:, None]).tanh().flatten(1))  # type: ignore[no-any-return]


class Pictures(nn.Module):
    """A picture for each point, and filters that meet many times its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(n, 16, 3, padding=1) for n in (2, 16))
        self.last = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x[:, :, None, None].expand(-1, 2, 8, 8)))
        return self.last(torch.tanh(self.second(h))).flatten(1).mean(1)  # type: ignore[no-any-return]


def normed() -> nn.Module:
    return nn.Sequential(stack([2, 48, 48]), nn.BatchNorm1d(48), nn.Tanh(), stack([48, 48, 1]))


def reparametrised() -> nn.Module:
    net = stack([2, 48, 48, 1])
    for layer in (net[0], net[2], net[4]):
        nn.utils.parametrizations.weight_norm(layer)
    return net


class Codes(nn.Module):
    """Each point carries one of many codes, looked up or indexed."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table, self.rest = nn.Embedding(count, width), stack([2 + width, 24, 1])

    def forward(self, x: Tensor) -> Tensor:
        numbers = torch.arange(len(x)) % len(self.table.weight)
        return self.rest(torch.cat([x, self.table(numbers)], 1))  # type: ignore[no-any-return]


class LatentGrid(nn.Module):
    """Features of four levels of one tensor, four corners each (hash grids)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rest = nn.Parameter(torch.randn(4, 256, 2)), stack([8, 24, 1])

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for level in range(4):
            at = x * 4 * 2**level
            cell = at.detach().long()
            found = torch.zeros(len(x), 2)
            for corner in (torch.tensor(c) for c in ((0, 0), (0, 1), (1, 0), (1, 1))):
                share = (1 - (at - cell - corner).abs()).prod(1, keepdim=True)
                number = (cell + corner) @ torch.tensor([1, 7919]) % 256
                found = found + share * self.table[level][number]
            levels.append(found)
        return self.rest(torch.cat(levels, 1))  # type: ignore[no-any-return]


class Blended(nn.Module):
    """Networks of many subdomains in one, and windows (finite basis PINNs)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.centres = torch.linspace(0, 1, count).view(-1, 1, 1)
        shapes = ((count, 2, width), (count, 1, width), (count, width, width), (count, width, 1))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        first, offset, second, last = self.weights
        at = x - self.centres
        hidden = torch.tanh(torch.tanh(torch.baddbmm(offset, at, first)) @ second)
        return (torch.exp(-at[..., :1].square()) * (hidden @ last)).sum(0)


class Bilinear(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.pair = stack([2, width]), nn.Bilinear(width, width, width)
        self.last = stack([width, 1])

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.last(torch.tanh(self.pair(h, h)))  # type: ignore[no-any-return]


class Weighted(nn.Module):
    """A number for each point, trained beside the network (self-adaptive weights)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.net = stack([2, 24, 1])
        self.weights = nn.ParameterList(nn.Parameter(torch.rand(n, 1)) for n in (count, count // 2))


def weighted(net: Any, x: Tensor) -> Tensor:
    weight = next(weight for weight in net.weights if len(weight) == len(x))
    return weight * u_xx(net.net, x)  # type: ignore[no-any-return]


def u_xx(net: nn.Module, x: Tensor) -> Tensor:
    return grad(grad(net(x), x)[:, :1], x)[:, :1]


def masked(net: nn.Module, x: Tensor) -> Tensor:
    return u_xx(net, x)[torch.arange(len(x)) % 3 > 0]


class Path(NamedTuple):
    net: Callable[[], nn.Module]
    residual: Callable[[nn.Module, Tensor], Tensor]
    points: int
    exact: bool  # whether all rows fit


PATHS = {
    "plain": Path(lambda: stack([2, 48, 48, 1]), u_xx, 1000, exact=True),
    "plain_large": Path(lambda: stack([2, 48, 48, 1]), u_xx, 4000, exact=False),
    "deep_large": Path(lambda: stack([2, *[48] * 5, 1]), lambda n, x: n(x), 20000, exact=False),
    "masked": Path(lambda: stack([2, 48, 48, 1]), masked, 1000, exact=True),
    "masked_large": Path(lambda: stack([2, 48, 48, 1]), masked, 4000, exact=False),
    "components": Path(lambda: stack([2, 48, 48, 3]), lambda n, x: n(x), 2000, exact=True),
    "components_large": Path(lambda: stack([2, 48, 48, 3]), lambda n, x: n(x), 9000, exact=False),
    "gradient": Path(lambda: stack([2, 48, 48, 1]), lambda n, x: grad(n(x), x), 1000, exact=True),
    "broadcast": Path(
        lambda: stack([2, 48, 48, 1]), lambda n, x: n(x) - x[:, 0].detach(), 40, exact=True
    ),
    "batch_norm": Path(normed, lambda n, x: n(x), 500, exact=False),
    "batch_norm_large": Path(normed, lambda n, x: n(x), 3000, exact=False),
    "convolution": Path(Convolved, lambda n, x: n(x), 500, exact=True),
    "convolution_large": Path(Convolved, lambda n, x: n(x), 20000, exact=False),
    "pictures": Path(Pictures, lambda n, x: n(x), 300, exact=False),
    "components_first": Path(
        lambda: stack([2, 48, 48, 3]), lambda n, x: n(x[None]).movedim(-1, 0), 9000, exact=False
    ),
    "differences": Path(
        lambda: stack([2, 48, 48, 1]), lambda n, x: n(x).diff(dim=0), 9000, exact=False
    ),
    "differences_on_a_grid": Path(
        lambda: stack([2, 48, 48, 1]),
        lambda n, x: n(x.view(10, -1, 2)).diff(dim=1),
        9000,
        exact=False,
    ),
    "weight_norm": Path(reparametrised, u_xx, 600, exact=True),
    "weight_norm_large": Path(reparametrised, u_xx, 9000, exact=False),
    "bilinear": Path(lambda: Bilinear(8), lambda n, x: n(x), 200, exact=True),
    "bilinear_many": Path(lambda: Bilinear(30), lambda n, x: n(x), 500, exact=False),
    "pointwise_weights": Path(lambda: Weighted(300), weighted, 300, exact=True),
    "pointwise_weights_many": Path(lambda: Weighted(2000), weighted, 2000, exact=False),
    "codes": Path(lambda: Codes(300, 8), u_xx, 200, exact=True),
    "codes_many": Path(lambda: Codes(4000, 8), u_xx, 600, exact=False),
    "latent_grid": Path(LatentGrid, lambda n, x: grad(n(x), x)[:, :1], 300, exact=False),
    "subdomains": Path(lambda: Blended(10, 8), u_xx, 30, exact=True),
    "subdomains_many": Path(lambda: Blended(60, 8), u_xx, 100, exact=False),
}
STAGES = ["traces", "spectra", "gradients", "distinct", "shares"]


def taken(run: Callable[[], object]) -> int:
    """Most bytes held meanwhile beyond those before, the result included."""
    gc.collect()
    return peak_extra_memory(run, CPU)[1]


def terms_of(path: Path) -> tuple[nn.Module, dict[str, Tensor], int]:
    """A network, a large and a small term, and what a backward pass of these holds."""
    torch.manual_seed(0)
    net = path.net()
    x, y = (torch.rand(n, 2).requires_grad_() for n in (path.points, path.points // 2))
    residuals = {"pde": path.residual(net, x), "bc": path.residual(net, y)}
    wanted = list(net.parameters())
    loss = sum(r.square().mean() for r in residuals.values())
    options = {"retain_graph": True, "allow_unused": True}
    return net, residuals, taken(lambda: torch.autograd.grad(loss, wanted, **options))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("max_rows", [None, 48])
def test_every_stage_of_every_path_stays_within_the_budget(path: Path, max_rows: int | None):
    net, residuals, backward = terms_of(path)
    bounds = {"memory_budget": BUDGET, "max_rows": max_rows}
    step = look(None, net, residuals=residuals, **bounds)

    def everything() -> None:
        for stage in ("kernel", "certificate"):
            getattr(step if stage == "kernel" else step.kernel, stage)
        for stage in STAGES:
            getattr(step, stage)

    assert taken(everything) <= BUDGET + backward
    if max_rows is None:
        sampled = step.kernel.sampled_terms != ()
        assert sampled is not path.exact
    assert max(step.kernel.certificate.values()) < 1e-4
    truth = empirical_ntk(residuals["bc"], net, memory_budget=2**33).trace("residual")
    assert abs(step.traces["bc"] - truth) <= 3.5 * step.kernel.trace_error("bc") + 1e-4 * truth


def test_rows_drawn_for_memory_are_those_of_the_reference():
    net, residuals, _ = terms_of(PATHS["plain_large"]._replace(points=400))
    with pytest.warns(UserWarning, match="of 400 rows of pde, .* of 200 rows of bc are measured"):
        kernel = empirical_ntk(residuals, net, memory_budget=2**19)
    for a in residuals:
        rows = kernel.jacobian(a).sample.rows  # type: ignore[union-attr]
        expected = reference_jacobian(residuals[a], net)[rows]
        assert_near(kernel.jacobian(a).dense(), expected, 1e-5, f"J {a}")


def test_components_of_a_point_are_drawn_together():
    torch.manual_seed(0)
    net = stack([2, 30, 3]).double()
    residual = net(torch.rand(200, 2, dtype=torch.float64))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kernel = empirical_ntk(residual, net, memory_budget=3 * 10**5)
    assert len(said) == 1, "the rows drawn take the fast path"
    rows = kernel.jacobian("residual").sample.rows  # type: ignore[union-attr]
    assert 12 <= len(rows) < 600
    assert torch.equal(rows.view(-1, 3) % 3, torch.arange(3).expand(len(rows) // 3, 3))
    assert_near(
        kernel.jacobian("residual").dense(), reference_jacobian(residual, net)[rows], 1e-12, "J"
    )


def test_gradients_that_do_not_fit_are_left_out_with_the_reason():
    w = torch.ones(3000, requires_grad=True)
    residuals = {f"r{i}": torch.randn(2, 3000) @ w for i in range(6)}
    loss = torch.stack([r.square().sum() for r in residuals.values()]).sum()
    step = look(loss, [w], names=list(residuals), memory_budget=2 * 8 * 3000 * 6 - 1)
    panel = ask(step, "interference")
    assert panel.readings["interference"].values == {}
    assert "Interference: left out; the gradients of all terms, 1.8e+04 numbers" in panel.summary()
    enough = look(loss, [w], names=list(residuals), memory_budget=2 * 8 * 3000 * 6)
    assert len(ask(enough, "interference").readings["interference"].values) == 15


def test_repeated_rows_are_looked_for_a_few_at_a_time():
    net = stack([2, 64, 64, 1])
    kernel = empirical_ntk(net(torch.rand(30_000, 2)), net)
    wide = 30_000 * 64 * 8  # one factor in the dtype of contractions
    assert taken(lambda: distinct_rows(kernel.jacobian("residual"))) < 1.5 * wide


class Large(Pinn):
    """Terms of a fast and of a slow path whose factors exceed the budget."""

    slow = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = (normed() if self.slow else stack([2, 48, 48, 1])).float()
        generator = torch.Generator().manual_seed(1)
        self.x = torch.rand(1500, 2, generator=generator)

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        x = self.x.clone().requires_grad_()
        operator = (lambda net, x: net(x)) if self.slow else u_xx
        return {"pde": operator(self.net, x), "bc": self.net(self.x[:700]) - 1}


class LargeSlow(Large):
    slow = True


@pytest.mark.parametrize("kind", [Large, LargeSlow])
@pytest.mark.parametrize("callback", [NTKMonitor, NTKBalancer])
def test_a_whole_measurement_stays_within_the_budget(
    kind: type[Large], callback: Any, monkeypatch: pytest.MonkeyPatch
):
    peaks: list[int] = []
    for name in ("at_backward", "batch_ends"):
        plain = getattr(callback, name)

        def measured(self: Any, at: Any, plain: Callable[..., None] = plain) -> None:
            peaks.append(taken(lambda: plain(self, at)))

        monkeypatch.setattr(callback, name, measured)
    module = make(kind)
    train(module, callback(every_n_steps=1, memory_budget=BUDGET), steps=2)
    loss = sum(r.square().mean() for r in module.residuals(None).values())
    backward = taken(lambda: torch.autograd.grad(loss, list(module.net.parameters())))
    assert len(peaks) == 4
    assert max(peaks) <= BUDGET + 2 * backward  # one of it holds the gradients of the step
    if callback is NTKMonitor:
        unwatched = make(kind)
        train(unwatched, steps=2)
        assert same(module, unwatched)


def test_bounds_are_shares_of_the_budget():
    bounds = Bounds(memory=2**30)
    assert bounds.held + bounds.temporary < bounds.memory
    assert (bounds.block_rows(512), bounds.block_rows(100)) == (2048, 400)
    assert Bounds(memory=4 * 8 * 6 * 10**2).block_rows(512) == 10
