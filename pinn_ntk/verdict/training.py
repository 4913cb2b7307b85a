"""How training went: the optimizer, how far its steps led, and what the loss did.

| symbol | meaning |
| --- | --- |
| mu_max | largest eigenvalue of D^(1/2) K D^(1/2), see `pinn_ntk.analysis.step_size` |
| lr_eff | learning rate of plain descent that goes as far along the gradient as the step taken |
| reach | sum of lr_eff over all steps, times mu_max: below 2 not even the fastest mode is learned |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.looks.look import Look
from pinn_ntk.verdict.quantity import CannotBeLookedAtError, Measured, nothing, quantity

TENTH = 0.1

ADAPTIVE = ("Adam", "NAdam", "RAdam", "AdamW", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop")
"""Optimizers whose step does not scale with the gradient."""


class Training(Measured):
    """Quantities of the training so far."""

    look: Look
    previous: Sequence[Mapping[str, Any]]

    @quantity("the optimizer", list)
    def optimizers(self) -> list[str]:
        """Class names of the optimizers."""
        return [type(_inner(optimizer)).__name__ for optimizer in self.look.optimizers]

    @property
    def adaptive(self) -> bool:
        """Whether steps do not scale with the gradient."""
        return any(name in ADAPTIVE for name in self.optimizers)

    @quantity("plain descent", bool)
    def plain(self) -> bool:
        """Whether plain gradient descent is used, without momentum, one rate for all."""
        groups = [g for o in self.look.optimizers for g in o.param_groups]
        alone = self.optimizers == ["SGD"] and not self.look.group_scales
        return alone and not any(g.get("momentum") for g in groups)

    @quantity("the learning rate", nothing)
    def lr(self) -> float | None:
        """Learning rate in use."""
        return self.look.learning_rate

    @quantity("the largest curvature", nothing)
    def curvature_now(self) -> float | None:
        """mu_max at this step."""
        look = self.look
        if not look.curvature or not set(look.kernel.terms) <= look.curvature.keys():
            return None
        bound = max_stable_lr(look.sampled, look.kernel, look.curvature, look.rows_kept)
        return 2 / bound if bound else None

    @quantity("the largest curvature without a balancer", nothing)
    def curvature_unbalanced(self) -> float | None:
        """mu_max at this step, were the weights of a balancer not there."""
        look = self.look
        if not self.balanced or self.curvature_now is None:
            return None
        plain = look.finite.curvature(dict.fromkeys(look.factors, look.scale))
        if plain is None:
            return None
        return 2 / max_stable_lr(look.sampled, look.kernel, plain, look.rows_kept)

    @property
    def mu_max(self) -> float | None:
        """The largest mu_max of all measurements."""
        before = [one.get("curvature_now") for one in self.previous]
        known = [mu for mu in (*before, self.curvature_now) if mu]
        return max(known) if known else None

    @quantity("steps so far", int)
    def steps(self) -> int:
        """Steps taken."""
        progress = self.look.progress
        return self.look.total_step if progress is None else progress.steps

    @quantity("the effective learning rate", nothing)
    def reach(self) -> float | None:
        """Sum of lr_eff over all steps, times mu_max."""
        progress = self.look.progress
        known = progress is not None and self.mu_max is not None
        return progress.travelled * self.mu_max if known else None  # type: ignore[union-attr,operator]

    @quantity("the sum of the learning rates", nothing)
    def scheduled(self) -> float | None:
        """Sum of the learning rates over all steps."""
        return None if self.look.progress is None else self.look.progress.scheduled

    @quantity("the largest step", nothing)
    def leap(self) -> float | None:
        """Largest |step| / |parameters|; of the first few steps a tenth of it."""
        return None if self.look.progress is None else self.look.progress.leap

    @quantity("the course of the loss", dict)
    def course(self) -> dict[str, float]:
        """Of the loss: decades fallen in all and in the last tenth, share of rises, jitter."""
        progress = self.look.progress
        if progress is None:
            raise CannotBeLookedAtError("the losses of earlier steps are not known")
        return {
            "fallen": progress.first - progress.last,
            "falling": progress.fallen(TENTH),
            "rising": progress.rising(TENTH),
            "jitter": progress.jitter(TENTH),
        }

    @quantity("losses that are not finite", nothing)
    def not_finite(self) -> int | None:
        """First step whose loss was not finite."""
        if self.look.progress is not None and self.look.progress.not_finite is not None:
            return self.look.progress.not_finite
        loss = self.look.loss
        finite = loss is None or bool(loss.detach().isfinite().all())
        return None if finite and not self.look.undefined else self.look.step

    @quantity("weight decay", nothing)
    def decay(self) -> float | None:
        """|decay theta| over |gradient of the loss|; None where no optimizer decays.

        Where the decay is decoupled from the gradient, as in AdamW, over a gradient of size 1,
        which is what its steps are scaled to.
        """
        pull = [
            (_decay(g), p)
            for o in self.look.optimizers
            for g in o.param_groups
            for p in g["params"]
        ]
        squares = sum((decay * float(p.detach().norm())) ** 2 for decay, p in pull if decay)
        if not squares:
            return None
        if any(_decoupled(o) for o in self.look.optimizers):
            return math.sqrt(squares / sum(p.numel() for decay, p in pull if decay))
        if not self.look.gradients:
            return None
        gradient = float(torch.stack(list(self.look.gradients.values())).sum(0).norm())
        return math.sqrt(squares) / gradient if gradient else None

    @quantity("a balancer", bool)
    def balanced(self) -> bool:
        """Whether a balancer sets the weights."""
        return self.look.balancing

    @quantity("whether points stay", bool)
    def stays(self) -> bool:
        """Whether the points are those of the last measurement, and no random numbers are drawn."""
        prints = self.prints
        before = self.previous[-1].get("prints") if self.previous else None
        return not self.look.drew_numbers and (before is None or before == prints)

    @quantity("fingerprints of the points", dict)
    def prints(self) -> dict[str, str | None]:
        """Term -> fingerprint of its points."""
        return dict(self.look.fingerprints)

    @quantity("number of parameters", int)
    def n_params(self) -> int:
        """Entries of all parameters that are trained."""
        return sum(p.numel() for p in self.look.trained.values())


def _decay(group: Mapping[str, Any]) -> float:
    return float(group.get("weight_decay") or 0.0)


def _decoupled(optimizer: Any) -> bool:
    groups = optimizer.param_groups
    return type(_inner(optimizer)).__name__ == "AdamW" or any(
        group.get("decoupled_weight_decay") for group in groups
    )


def _inner(optimizer: Any) -> Any:
    """The optimizer of torch behind a wrapper of Lightning's."""
    return getattr(optimizer, "optimizer", optimizer)
