"""What is kept of every step of a training: its loss, and how far the optimizer went.

| symbol | meaning |
| --- | --- |
| g | gradient of the loss before clipping, (P,) |
| s | step of the parameters, (P,) |
| lr_eff | -(s . g) / |g|^2, the learning rate of plain descent that goes as far along g |
| leap | |s| / |theta|, theta being the parameters before the step |

Nothing waits for an accelerator: numbers stay where they are until many are read at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from pinn_ntk.looks.loss_bins import LossBins

HELD = 64
"""Numbers that are held on their device before they are read."""

EACH = 16
"""First steps, each of which is looked at."""

EVERY = 16
"""Steps after which one is looked at, at least."""

WARM, LONGER = 8, 10.0
"""First steps, and how much longer those of RMSprop are than later ones: 1 / sqrt(1 - 0.99)."""


class _Begun(NamedTuple):
    """A step before the optimizer moved."""

    tensors: list[Tensor]  # parameters
    before: Tensor  # their values, (P,)
    gradient: Tensor  # (P,)
    lr: float | None


class Progress:
    """Losses of all steps, and how far some of the steps went, which stand for those between.

    In a loop of one's own, around each step of the optimizer; the gradient is looked at as it is
    when the block begins, so clip within it. In a Trainer, `NTKMonitor` keeps one.

    Example:
        >>> w = torch.tensor([3.0], requires_grad=True)
        >>> optimizer, progress = torch.optim.SGD([w], lr=0.1), Progress()
        >>> for _ in range(4):
        ...     loss = w.square().sum()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     with progress.step(optimizer, loss):
        ...         optimizer.step()
        >>> progress.steps, round(progress.travelled, 3), round(progress.scheduled, 3)
        (4, 0.4, 0.4)

    Attributes:
        losses: Loss over the steps, as `fallen`, `rising` and `jitter` read it.
    """

    def __init__(self) -> None:
        self.losses = LossBins()
        self._steps = 0
        self._travelled = self._scheduled = 0.0
        self._lr_eff = self._lr = math.nan
        self._leap = 0.0
        self._held: list[tuple[Tensor | None, Callable[[Any], None]]] = []  # numbers, their takers
        self._begun: _Begun | None = None

    @contextmanager
    def step(self, optimizer: Optimizer, loss: Tensor | None = None) -> Iterator[None]:
        """Around ``optimizer.step()``: gradients are there, and the block moves the parameters."""
        self.loss(loss)
        if self.wants_step():
            groups = optimizer.param_groups
            self.step_begins([p for group in groups for p in group["params"]], largest(groups))
        yield
        self.step_ends()

    def loss(self, loss: Tensor | None, scale: float = 1.0) -> None:
        """A step, and its loss where it is known; ``scale`` times the number that is kept."""
        self._steps += 1
        take = partial(self._counted, scale)
        self._held.append((None if loss is None else loss.detach(), take))
        if len(self._held) >= HELD:
            self._read()

    def wants_step(self) -> bool:
        """Whether the step whose loss was given last is one to look at, see `step_begins`."""
        return self._steps <= EACH or self._steps % max(EVERY, self.losses.width) == 0

    def step_begins(self, params: Iterable[Tensor], lr: float | None) -> None:
        """The gradients are there, and the optimizer has not moved."""
        moved = [p for p in params if p.grad is not None]
        odd = any(p.grad.layout != torch.strided or p.is_complex() for p in moved)  # type: ignore[union-attr]
        self._begun = None
        if moved and not odd and len({(p.device, p.dtype) for p in moved}) == 1:
            gradients = [p.grad for p in moved if p.grad is not None]
            self._begun = _Begun(moved, _joined(moved), _joined(gradients), lr)

    def step_ends(self) -> None:
        """The optimizer has moved."""
        begun, self._begun = self._begun, None
        if begun is not None:
            g, s = begun.gradient, _joined(begun.tensors) - begun.before
            lr = math.nan if begun.lr is None else begun.lr
            went = -torch.dot(s, g) / torch.dot(g, g)
            self._held.append((went, partial(self._looked_at, lr)))
            allowed = LONGER if self._steps <= WARM else 1.0
            self._held.append((s.norm() / begun.before.norm() / allowed, self._leapt))

    def _read(self) -> None:
        """Take the numbers held, in their order."""
        held, self._held = self._held, []
        read = iter(_numbers([number for number, _ in held if number is not None]))
        for number, take in held:
            take(None if number is None else next(read))

    def _counted(self, scale: float, loss: float | None) -> None:
        """A step goes as far as the last one that was looked at, until it is looked at itself."""
        self.losses.add(None if loss is None else loss / scale)
        self._travelled += _ahead(self._lr_eff)
        self._scheduled += _ahead(self._lr)

    def _looked_at(self, lr: float, lr_eff: float) -> None:
        if math.isfinite(lr_eff):
            self._travelled += _ahead(lr_eff) - _ahead(self._lr_eff)
            self._lr_eff = lr_eff
        if math.isfinite(lr):
            self._scheduled += lr - _ahead(self._lr)
            self._lr = lr

    def _leapt(self, leap: float) -> None:
        if math.isfinite(leap):
            self._leap = max(self._leap, leap)

    @property
    def steps(self) -> int:
        """Steps seen."""
        return self._steps

    @property
    def travelled(self) -> float:
        """Sum of lr_eff over all steps; one that went up the gradient counts as none."""
        self._read()
        return self._travelled

    @property
    def scheduled(self) -> float:
        """Sum of the largest learning rate over all steps."""
        self._read()
        return self._scheduled

    @property
    def lr_eff(self) -> float:
        """That of the last step that was looked at; NaN before the first."""
        self._read()
        return self._lr_eff

    @property
    def leap(self) -> float:
        """Largest |s| / |theta| of the steps that were looked at; of the first 8 a tenth of it."""
        self._read()
        return self._leap

    @property
    def first(self) -> float:
        """log10 of the first loss, NaN where there is none."""
        self._read()
        return self.losses.first

    @property
    def last(self) -> float:
        """log10 of the last loss, NaN where there is none."""
        self._read()
        return self.losses.last

    @property
    def not_finite(self) -> int | None:
        """The first step whose loss was NaN or infinite; None where there was none."""
        self._read()
        return self.losses.not_finite

    def fallen(self, share: float) -> float:
        """Decades by which the loss fell over the last ``share`` of the steps, on average."""
        self._read()
        return self.losses.fallen(share)

    def rising(self, share: float) -> float:
        """Share of the steps, of the last ones, at which the loss rose."""
        self._read()
        return self.losses.rising(share)

    def jitter(self, share: float) -> float:
        """Root mean square change of log10 loss from step to step, over the last ones."""
        self._read()
        return self.losses.jitter(share)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, from which another one goes on as if there had been no break."""
        self._read()
        went = {"travelled": self._travelled, "scheduled": self._scheduled}
        rates = {"lr_eff": self._lr_eff, "lr": self._lr, "leap": self._leap}
        return {"steps": self._steps, **went, **rates, "losses": self.losses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._held, self._begun = [], None
        self._steps = int(state["steps"])
        self._travelled, self._scheduled = float(state["travelled"]), float(state["scheduled"])
        self._lr_eff, self._lr = float(state["lr_eff"]), float(state["lr"])
        self._leap = float(state.get("leap", 0.0))
        self.losses = LossBins()
        self.losses.load_state_dict(state["losses"])

    def __getstate__(self) -> dict[str, Any]:
        self._read()
        return vars(self) | {"_begun": None}


def largest(groups: Iterable[Mapping[str, Any]]) -> float | None:
    """The largest learning rate of groups of parameters; None where none has one."""
    rates = [group["lr"] for group in groups if isinstance(group.get("lr"), float | int | Tensor)]
    return max((float(rate) for rate in rates), default=None)


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    """All entries, (P,), of single precision at least."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _numbers(tensors: list[Tensor]) -> list[float]:
    """Tensors of one entry each as numbers, read at once from each device."""
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(tensors):
        places.setdefault((tensor.device, tensor.dtype), []).append(i)
    found = [0.0] * len(tensors)
    for listed in places.values():
        read = torch.stack([_scalar(tensors[i]) for i in listed]).tolist()
        for i, value in zip(listed, read, strict=True):
            found[i] = float(value)
    return found


def _scalar(tensor: Tensor) -> Tensor:
    return tensor.reshape(()) if tensor.ndim else tensor


def _ahead(rate: float) -> float:
    return max(rate, 0.0) if math.isfinite(rate) else 0.0
