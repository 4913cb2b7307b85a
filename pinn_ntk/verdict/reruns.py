"""What the step gives under another circumstance: u = 0, other random numbers, float64, old points.

| symbol | meaning |
| --- | --- |
| r(u = 0) | residual with the output of every network set to zero: the baseline of a term |
| order | highest derivative of u in a term: r answers to u = (x - x0)^order at every point x0 |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pinn_ntk.looks.last_layer import last_parameters
from pinn_ntk.looks.networks import Output, beside, power, zero
from pinn_ntk.looks.rerun import Change, Ran, Rerun
from pinn_ntk.verdict.quantity import CannotBeLookedAtError, nothing, quantity
from pinn_ntk.verdict.terms import Terms, rms

ORDERS = (4, 3, 2, 1)
"""Derivatives that are looked for."""

SEEDS = (101, 202)

ALIKE = 1e-3
"""Distance of two inputs, over their size, that rounding may bring about."""

ZERO, OF_ALL = 1e-6, 1e-7
"""Residual at u = 0, over the largest so far or that of all terms, of a homogeneous term."""


class Reruns(Terms):
    """Quantities that take the step a second time."""

    @property
    def rerun(self) -> Rerun:
        """Runs the step again, or says why that cannot be."""
        if self.look.rerun is None:
            raise CannotBeLookedAtError(self.look.no_rerun or "there is no residual function")
        return self.look.rerun

    @quantity("a second run", nothing)
    def base(self) -> Ran | None:
        """The step once more, as it was."""
        return self.rerun()

    @property
    def wide(self) -> Ran:
        """The step once more in float64, with what it takes derivatives of."""
        if "wide" not in self.__dict__:
            self.__dict__["wide"] = self.rerun(Change(double=True, fields=True))
        return self.__dict__["wide"]  # type: ignore[no-any-return]

    @quantity("u = 0", dict)
    def zero(self) -> dict[str, float]:
        """Term -> root mean square of its residual with the last layer of each network zeroed."""
        _, base = self.rerun, self.base
        if base is None or not base.calls:
            raise CannotBeLookedAtError("no call of a network was seen")
        if self.lifted is not None:
            found = self._sizes(self.lifted)
            if all(map(math.isfinite, found.values())):
                return found
        return self._sizes(self.rerun(Change(output=zero)))

    @property
    def lifted(self) -> Ran | None:
        """The step with the last layer of each network zeroed: what holds by construction stays."""
        if "lifted" not in self.__dict__:
            names = self.last
            change = Change(parameters=lambda n, p: p * (n not in names))
            self.__dict__["lifted"] = self.rerun(change) if names else None
        return self.__dict__["lifted"]  # type: ignore[no-any-return]

    @property
    def last(self) -> set[str]:
        """Names of the parameters of the last layers; empty where one network has none."""
        base = self.base
        each = [] if base is None else [last_parameters(c.output, base.params) for c in base.calls]
        return set().union(*each) if all(each) else set()

    def _sizes(self, ran: Ran) -> dict[str, float]:
        return {term: rms(self.counted(term, r)) for term, r in ran.residuals.items()}

    @property
    def peak(self) -> dict[str, float]:
        """Term -> largest rms of its residual at any measurement so far."""
        found = dict(self.rms)
        for one in self.previous:
            for term, size in one.get("rms", {}).items():
                if term in found:
                    found[term] = max(found[term], size)
        return found

    @property
    def homogeneous(self) -> list[str]:
        """Terms that u = 0 solves."""
        zero = self.zero
        least = OF_ALL * max(zero.values(), default=0.0)  # the rounding of sin(pi), say
        return [
            t for t, peak in self.peak.items() if t in zero and zero[t] <= max(least, ZERO * peak)
        ]

    @quantity("the size of u", nothing)
    def size(self) -> float | None:
        """Root mean square of what the networks give."""
        outputs = [] if self.base is None else [call.output for call in self.base.calls]
        return max((rms(output) for output in outputs), default=None)

    @quantity("derivatives in the terms", dict, lasts=bool)
    def order(self) -> dict[str, int]:
        """Term -> highest derivative of u in it; empty where networks are not called as a whole."""
        start = self.rerun(Change(output=zero))
        if not start.calls or any(call.leaf for call in start.calls):
            return {}
        finite = all(bool(r.isfinite().all()) for r in start.residuals.values())  # log u is not
        found = self._orders(start, lambda field: field) if finite else {}
        factors = len({call.name for call in start.calls}) > 1  # branch times trunk, say
        if not any(found.values()) and (factors or not finite):
            found = self._orders(self.rerun(Change(output=beside(zero))), beside)
        return found if any(found.values()) else {}

    def _orders(self, start: Ran, put: Callable[[Output], Output]) -> dict[str, int]:
        """Term -> highest derivative that answers to a field put into the run ``start``."""
        found = dict.fromkeys(start.residuals, 0)
        for order in ORDERS:
            ran = self.rerun(Change(output=put(power(order))))
            for term, r in ran.residuals.items():
                if not found[term] and _differ(r, start.residuals[term]):
                    found[term] = order
        return found

    @property
    def equations(self) -> list[str]:
        """Terms with the highest derivatives of all."""
        highest = max(self.order.values(), default=0)
        return [term for term, order in self.order.items() if order == highest]

    @quantity("a call with other random numbers", dict, lasts=lambda found: not any(found.values()))
    def random(self) -> dict[str, float]:
        """Term -> relative change of its residual with other random numbers, at the same points."""
        first, second = (self.rerun(Change(seed=seed)) for seed in SEEDS)
        if not _same_points(first, second):
            return {}
        return {t: _change(r, second.residuals[t]) for t, r in first.residuals.items()}

    @quantity("float64", dict)
    def rounding(self) -> dict[str, float]:
        """Term -> relative change of its residual when it is computed in float64."""
        wide = self.wide
        if self.base is None or not _same_points(self.base, wide):
            raise CannotBeLookedAtError("other points are drawn in float64")
        narrow = self.base.residuals
        return {t: _change(narrow[t], r) for t, r in wide.residuals.items() if t in narrow}

    @quantity("residuals in float64", dict)
    def exact(self) -> dict[str, float]:
        """Term -> root mean square of its residual when it is computed in float64."""
        return {t: rms(self.counted(t, r)) for t, r in self.wide.residuals.items()}


def _differ(r: Tensor, other: Tensor) -> bool:
    change, size = float((r - other).detach().abs().max()), float(other.detach().abs().max())
    return change > 1e-6 * max(size, 1e-3)


def _change(r: Tensor, other: Tensor) -> float:
    if r.shape != other.shape:
        return 0.0
    size = rms(other)
    return rms(_wide(r) - _wide(other)) / size if size else 0.0


def _wide(r: Tensor) -> Tensor:
    return r.detach().to(torch.complex128 if r.is_complex() else torch.float64)


def _same_points(first: Ran, second: Ran) -> bool:
    """Whether the networks saw the same inputs, up to rounding."""
    pairs = list(zip(first.calls, second.calls, strict=False))
    return (
        bool(pairs)
        and len(first.calls) == len(second.calls)
        and all(
            len(a.inputs) == len(b.inputs)
            and all(
                x.shape == y.shape and _equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True)
            )
            for a, b in pairs
        )
    )


def _equal(x: Tensor, y: Tensor) -> bool:
    if x.dtype == y.dtype:
        return bool((x == y).all())
    apart = (x.detach().double() - y.detach().double()).abs().max() if x.numel() else 0.0
    return float(apart) <= ALIKE * max(rms(x), rms(y))
