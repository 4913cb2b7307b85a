"""LightningModules as people write them, around the problem of `tests.pinn`.

Each notes, row by row, what callbacks have to find in its steps, and may weight its loss by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pinn_ntk import LossWeights, tap
from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.graph.reference import reference_jacobian
from tests.kernels import mlp
from tests.pinn import N_PDE, Pinn, batch, same
from tests.pinn import fit as train

Residuals: TypeAlias = dict[str, Tensor]


class Noted(Pinn):
    """Notes residuals and Jacobians of every step; of several evaluations, the first one's."""

    taps = False

    def __init__(
        self,
        weigh_every: int | None = None,
        optimizer: str | Callable[[Any], Any] = "sgd",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.configure = optimizer if callable(optimizer) else None
        self.optimizer = "sgd" if callable(optimizer) else optimizer
        self.weigh_every = weigh_every
        self.weights: dict[str, float] = {}
        self.jacobians: dict[int, Residuals] = {}
        self.rows: dict[int, Residuals] = {}
        self.theta: dict[int, Tensor] = {}
        self.effective: dict[int, dict[str, float]] = {}
        self.batches = 0

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers() if self.configure is None else self.configure(self)

    def trained(self) -> list[Tensor]:
        return [p for p in self.parameters() if p.requires_grad]

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    @property
    def step(self) -> int:
        return self.batches // self.trainer.accumulate_grad_batches

    def note(self, residuals: Residuals) -> None:
        noted = self.jacobians.setdefault(self.step, {})
        for name, residual in residuals.items():
            if name not in noted:
                noted[name] = reference_jacobian(residual, self.trained())
                self.rows.setdefault(self.step, {})[name] = residual.detach().flatten()
        theta = torch.cat([p.detach().flatten().double() for p in self.trained()])
        self.theta.setdefault(self.step, theta)
        if self.weigh_every and self.step % self.weigh_every == 0:
            self.weights = self.rule(self.step)

    def traces(self, step: int) -> dict[str, float]:
        return {name: float(J.square().sum()) for name, J in self.jacobians[step].items()}

    def rule(self, step: int) -> dict[str, float]:
        """Weights by Wang's rule, of the step's own traces as means over the rows."""
        rows = {name: len(J) for name, J in self.jacobians[step].items()}
        means = {name: trace / rows[name] for name, trace in self.traces(step).items()}
        return {name: sum(means.values()) / mean for name, mean in means.items()}

    def moved(self, step: int) -> float:
        start = self.theta[min(self.theta)]
        return float((self.theta[step] - start).norm() / start.norm())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.note(residuals)
        losses = self.losses(residuals)
        self.log_losses(losses, batch_idx)
        return self.total(losses)

    def tapped(self, residuals: Residuals) -> Residuals:
        return {n: tap(r, n) for n, r in residuals.items()} if self.taps else residuals

    def descend(
        self, residuals: Residuals, batch_idx: int, optimizer: Any, *, raw: bool = False
    ) -> None:
        """A step of manual optimisation."""
        self.note(residuals)
        losses = self.losses(self.tapped(residuals))
        self.log_losses(losses, batch_idx)
        optimizer.zero_grad()
        backward = torch.Tensor.backward if raw else self.manual_backward
        backward(self.total(losses))
        optimizer.step()

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.weights.get(n, 1.0) * loss for n, loss in losses.items()]).sum()


class OwnLoss(Noted):
    """The loss, and the effective weights it stands for, come from a function."""

    def __init__(self, loss: Callable[..., tuple[Tensor, dict[str, float]]], **options: Any):
        super().__init__(**options)
        self.loss = loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.note(residuals)
        self.log_losses(self.losses(residuals), batch_idx)
        loss, self.effective[self.step] = self.loss(self, residuals)
        return loss


class Explicit(Noted):
    """Weights its loss with a LossWeights module, by default of the network's dtype."""

    def __init__(
        self,
        initial: dict[str, float] | None = None,
        weights_dtype: torch.dtype = torch.float64,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.loss_weights = LossWeights(["pde", "bc"], initial).to(weights_dtype)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        self.effective.setdefault(self.step, self.loss_weights.as_dict())
        return self.loss_weights(losses)


class Manual(Noted):
    """Manual optimisation with one optimizer; a raw backward pass, taps and the like on demand."""

    def __init__(self, raw: bool = False, taps: bool = False, pl_optimizer: bool = True, **o: Any):
        super().__init__(**o)
        self.automatic_optimization = False
        self.raw, self.taps, self.pl_optimizer = raw, taps, pl_optimizer

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers(use_pl_optimizer=self.pl_optimizer)
        self.descend(self.residuals(batch), batch_idx, optimizer, raw=self.raw)


class SelfAdaptive(Noted):
    """A generator of weights: the network descends, then pointwise weights ascend."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False
        self.mask = nn.Parameter(torch.linspace(0.5, 2, N_PDE, dtype=torch.float64)[:, None])

    def trained(self) -> list[Tensor]:
        return [*self.net.parameters(), self.mask]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        network = torch.optim.Adam(self.net.parameters(), lr=0.01)
        return [network, torch.optim.Adam([self.mask], lr=0.1)]

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for optimizer, sign in zip(self.optimizers(), (1, -1), strict=True):
            residuals = self.residuals(batch)
            self.note(residuals)
            effective = {"pde": float(self.mask.detach().mean()), "bc": 1.0}
            self.effective.setdefault(self.step, effective)
            losses = self.losses(residuals) | {"pde": (self.mask * residuals["pde"] ** 2).mean()}
            self.log_losses(losses, batch_idx)
            optimizer.zero_grad()
            total = self.total(losses) if sign == 1 else losses["pde"] + losses["bc"]
            self.manual_backward(sign * total)
            optimizer.step()


class TwoNetworks(Noted):
    """u and its source f are networks of their own; f enters the PDE and is fitted to data."""

    def __init__(self, manual: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = not manual
        self.source = mlp(1, 4, 1)

    def configure_optimizers(self) -> Any:
        if self.automatic_optimization:
            return super().configure_optimizers()
        return [torch.optim.Adam(n.parameters(), lr=0.01) for n in (self.net, self.source)]

    def residuals(self, batch: Any) -> Residuals:
        x = batch["x"]
        found = super().residuals(batch)
        pde = found["pde"] + torch.sin(3 * x) - self.source(x)
        return {"pde": pde, "bc": found["bc"], "data": self.source(x[:3]) - torch.sin(3 * x[:3])}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        for optimizer, names in zip(self.optimizers(), (("pde", "bc"), ("data",)), strict=True):
            residuals = self.residuals(batch)
            self.descend({name: residuals[name] for name in names}, batch_idx, optimizer)
        return None


class Resampled(Noted):
    """Draws the points of the PDE in each step with the global generator."""

    def residuals(self, batch: Any) -> Residuals:
        x = 2 * torch.rand(N_PDE, 1, dtype=batch["x"].dtype) - 1
        return super().residuals(batch | {"x": x})

    def on_grid(self, batch: Any) -> Residuals:
        return super().residuals(batch)


class Stored(Noted):
    """Keeps its points to itself; what the loader yields is not looked at."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.points = batch()

    def residuals(self, batch: Any) -> Residuals:
        return super().residuals(self.points)


class Inverse(Noted):
    """An unknown coefficient in the PDE; ``owned`` by the module, or only by the optimizer."""

    def __init__(self, owned: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.owned = owned
        if owned:
            self.coefficient = nn.Parameter(torch.full((1,), 0.7, dtype=torch.float64))

    def trained(self) -> list[Tensor]:
        return [*self.net.parameters(), self.coefficient]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if not self.owned:
            self.coefficient = torch.full((1,), 0.7, dtype=torch.float64, requires_grad=True)
        groups = [{"params": self.net.parameters()}, {"params": [self.coefficient], "lr": 0.1}]
        return torch.optim.Adam(groups, lr=0.01)

    def residuals(self, batch: Any) -> Residuals:
        x = batch["x"].clone().requires_grad_()
        u = self.net(3 * x)
        (u_x,) = torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x, x, torch.ones_like(u), create_graph=True)
        return {"pde": self.coefficient * u_xx + u, "bc": self.net(3 * batch["ends"]) - 1}


class Burst(Noted):
    """NaN in one row of "bc" at step 2; gradients are cleaned as careful people do."""

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().residuals(batch)
        bad = torch.zeros_like(found["bc"])
        bad[1] = float("nan") if self.step == 2 else 0.0
        return {"pde": found["pde"], "bc": found["bc"] + bad}

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad.nan_to_num_(nan=0.0)


class CutOff(Noted):
    """Raises ``error`` at step 3."""

    error: BaseException

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 3:
            raise self.error
        return loss


@dataclass
class Points:
    """Batch of a user's class, which a checkpoint cannot hold; its tensors alone are kept."""

    x: Tensor
    ends: Tensor


class Stream:
    """A loader that knows where it is; every batch has points of its own, drawn by its number."""

    def __init__(self, pack: Callable[[dict[str, Tensor]], Any] = dict) -> None:
        self.pack, self.position = pack, 0

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[Any]:
        while self.position < len(self):
            self.position += 1
            generator = torch.Generator().manual_seed(self.position)
            x = 2 * torch.rand(N_PDE, 1, dtype=torch.float64, generator=generator) - 1
            yield self.pack(batch() | {"x": x})
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def compare(
    kind: type[Pinn],
    *callbacks: pl.Callback,
    weigh_every: int | None = None,
    fit: dict[str, Any] | None = None,
    both: Callable[[], Iterable[pl.Callback]] = tuple,
    like: tuple[type[Noted], dict[str, Any]] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """A module trained beside callbacks for five steps, and the like without: they agree.

    With ``weigh_every`` the other weights its loss by hand, and they agree but for rounding.
    Callbacks of ``both`` are made for each; the other may be of another kind and options.
    """
    (kind_of_other, of_other), fit = like or (kind, options), {"steps": 5, **(fit or {})}
    weighing = {"weigh_every": weigh_every} if weigh_every else {}
    other, module = make(kind_of_other, **weighing, **of_other), make(kind, **options)
    train(other, *both(), **fit)
    train(module, *callbacks, *both(), **fit)
    if weigh_every is None:
        assert same(module, other)
    else:
        assert_close(module, other)
    return module, other


def make(kind: Callable[..., Any] = Noted, /, *arguments: Any, **options: Any) -> Any:
    """A module that starts from the same parameters whenever it is made."""
    torch.manual_seed(1)
    return kind(*arguments, **options)


def series(monitor: Any, tag: str) -> dict[int, float]:
    return {int(step): float(value) for step, value in monitor.history.get(tag, ())}


def steps_of(monitor: Any, tag: str = "ntk/drift/parameters") -> list[int]:
    return list(series(monitor, tag))


def assert_series(
    monitor: Any,
    tag: str,
    expected: Callable[[int], float],
    steps: Iterable[int],
    rel: float = 1e-10,
) -> None:
    """A tag was logged at just these steps, each time with what a function of the step gives."""
    values = {step: expected(step) for step in steps}
    assert series(monitor, tag) == pytest.approx(values, rel=rel), tag


def assert_terms(
    monitor: Any,
    quantity: str,
    expected: Callable[[int], Mapping[str, float]],
    steps: Sequence[int],
    rel: float = 1e-10,
) -> None:
    """The same for ``ntk/<quantity>/<term>`` of all terms."""
    for term in expected(steps[0]):
        of_term = {step: expected(step)[term] for step in steps}
        assert_series(monitor, f"ntk/{quantity}/{term}", of_term.__getitem__, steps, rel)


def assert_traces(monitor: NTKMonitor, module: Noted, steps: Sequence[int]) -> None:
    """Every trace logged is that of the row-by-row Jacobian, at just these steps."""
    assert_terms(monitor, "trace", module.traces, steps)


def assert_close(a: nn.Module, b: nn.Module, rel: float = 1e-9) -> None:
    """Parameters agree but for the rounding of differently computed weights."""
    torch.testing.assert_close(
        list(a.parameters()), list(b.parameters()), rtol=rel, atol=1e-12, check_dtype=False
    )
