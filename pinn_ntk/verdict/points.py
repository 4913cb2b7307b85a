"""The points of the terms: whether they repeat, and where the residual is large.

Points are what goes into the networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.calls import behind_any, calls_behind, places_of, points_behind
from pinn_ntk.verdict.fields import u_of
from pinn_ntk.verdict.quantity import nothing, quantity
from pinn_ntk.verdict.reruns import Reruns

AT_START = 0.05
"""Distance from the first time, over all of it, up to which a condition is one at the start."""

HELD, OPEN = 0.3, 0.8
"""Mean change of u that parameters bring about at one end of a coordinate, over that everywhere:
where u holds by construction, and where it does not."""

EARLY = 0.3
"""Share of the time that is early."""


class Points(Reruns):
    """Quantities of the points."""

    @property
    def calls_of(self) -> dict[str, NetworkCall]:
        """Term -> the call of a network behind it that has most of its rows."""
        if "calls_of" not in self.__dict__:
            self.__dict__["calls_of"] = {} if self.base is None else calls_behind(self.base)
        return self.__dict__["calls_of"]  # type: ignore[no-any-return]

    @property
    def points(self) -> dict[str, Tensor]:
        """Term -> its points, (N, d)."""
        if "points" not in self.__dict__:
            self.__dict__["points"] = {} if self.base is None else points_behind(self.base)
        return self.__dict__["points"]  # type: ignore[no-any-return]

    @property
    def spots(self) -> dict[str, Tensor]:
        """Term -> all its points, not in the order of its rows, (N, d)."""
        if "spots" not in self.__dict__:
            self.__dict__["spots"] = {} if self.base is None else places_of(self.base)
        return self.__dict__["spots"]  # type: ignore[no-any-return]

    @property
    def networks(self) -> dict[str, set[str]]:
        """Term -> names of the networks behind it: each may have a part of the domain."""
        if "networks" not in self.__dict__:
            ran = self.base
            self.__dict__["networks"] = (
                {} if ran is None else {t: {c.name for c in behind_any(ran, [t])} for t in self.rms}
            )
        return self.__dict__["networks"]  # type: ignore[no-any-return]

    @quantity("repeated points", dict)
    def repeated(self) -> dict[str, tuple[int, int]]:
        """Term -> different points, and all."""
        return {t: (len(torch.unique(x, dim=0)), len(x)) for t, x in self.points.items()}

    @quantity("residuals at equal points", dict)
    def torn(self) -> dict[str, float]:
        """Term -> share of r^2 that no u can do anything about: rows differ at equal points."""
        found = {}
        for term, x in self.points.items():
            r = self.look.residuals[term].detach().flatten()
            if not self.order.get(term) and len(r) == len(x) and not r.is_complex():
                found[term] = differing(x, r.double())
        return found

    @quantity("where the residual is large", dict)
    def concentration(self) -> dict[str, dict[str, float]]:
        """Equation -> share of r^2 in the worst tenth of its points, and how early these are."""
        found = {}
        for term in self.equations:
            r = self.look.residuals[term].detach().abs().double()
            x = self.points.get(term)
            if x is None or r.numel() % len(x) or not float(r.norm()):
                continue
            r = r.reshape(len(x), -1).norm(dim=1)  # of all components
            worst = r.square().sort(descending=True)
            count = max(1, len(r) // 10)
            found[term] = {"share": float(worst.values[:count].sum() / worst.values.sum())}
            time = self.time(term)
            if time is not None:
                t = x[:, time].double()
                early = t[worst.indices[:count]] <= t.min() + EARLY * (t.max() - t.min())
                found[term]["early"] = float(early.double().mean())
        return found

    def time(self, equation: str) -> int | None:
        """Column of the points at whose first value conditions hold, and not at its last."""
        x = self.spots.get(equation)
        conditions = self._conditions()
        if x is not None and not conditions:
            return self._held_at_start(equation, x)
        others = [t for t in conditions if t in self.spots]
        if x is None or not others or any(self.spots[t].shape[1] != x.shape[1] for t in others):
            return None
        places = list(self.places(equation, others).values())
        first = [k for k in range(x.shape[1]) if any(near(p[:, k], 0.0).all() for p in places)]
        last = {k for k in range(x.shape[1]) if any(near(p[:, k], 1.0).any() for p in places)}
        alone = [k for k in first if k not in last] if x.shape[1] == 1 else first
        return alone[0] if len(alone) == 1 else None

    def places(self, equation: str, others: Sequence[str]) -> dict[str, Tensor]:
        """Term -> its points within the box of those of an equation and its conditions, 0 to 1."""
        own = [t for t in others if self.networks[t] & self.networks[equation]]
        box = torch.cat([self.spots[t] for t in (equation, *own)])
        low, size = box.min(0).values, box.max(0).values - box.min(0).values
        return {t: (self.spots[t] - low) / size.clamp(min=1e-12) for t in others}

    def _conditions(self) -> list[str]:
        """Terms that hold elsewhere than the equations; not a sum that is to be conserved, say."""
        inside = [self.spots[t] for t in self.equations if t in self.spots]
        solved = set(self.homogeneous)
        return [
            t
            for t in self.rms
            if t not in self.equations
            and not (t in solved and any(_same(self.spots.get(t), x) for x in inside))
        ]

    def _held_at_start(self, equation: str, x: Tensor) -> int | None:
        """Column at whose first value u holds by construction: parameters do not move it there.

        Along a line an equation of first order that has no condition can be held nowhere else.
        """
        if x.shape[1] == 1 and self.order.get(equation) == 1:
            return 0
        here, there = self._with_and_without(equation)
        if here is None or there is None or here.shape != there.shape or here.numel() % len(x):
            return None
        free = (here - there).double().abs().reshape(len(x), -1).sum(1)
        mean = float(free.mean())
        size = (x.max(0).values - x.min(0).values).clamp(min=1e-12)
        place = (x - x.min(0).values) / size
        bound = [float(free[near(column, 0.0)].mean()) < HELD * mean for column in place.T]
        open_ = [float(free[near(column, 1.0)].mean()) > OPEN * mean for column in place.T]
        held = [k for k, (low, high) in enumerate(zip(bound, open_, strict=True)) if low and high]
        return held[0] if len(held) == 1 else None

    def _with_and_without(self, equation: str) -> tuple[Tensor | None, Tensor | None]:
        """u as it is, and with the last layer of each network zeroed."""
        if not self.last:
            return None, None
        change = Change(parameters=lambda n, p: p * (n not in self.last), double=True, fields=True)
        each = [u_of(ran, equation) for ran in (self.wide, self.rerun(change))]
        here, there = (None if u is None else u.detach() for u in each)
        return here, there

    @quantity("whether conditions are initial values", bool)
    def beginnings(self) -> bool:
        """Whether equations run along a line, and all other terms hold at its beginning."""
        lines = [self.points[t] for t in self.equations if t in self.points]
        if not lines or any(x.shape[1] > 1 for x in lines):
            return False
        every = torch.cat(lines)
        low, size = every.min(), (every.max() - every.min()).clamp(min=1e-12)
        others = [self.spots.get(t) for t in self._conditions()]
        return all(
            x is not None and x.shape[1] == 1 and bool(near((x - low) / size, 0.0).all())
            for x in others
        )

    @quantity("values asked for within the domain", list)
    def within(self) -> list[str]:
        """Terms beside the equations that have points away from all ends of the domain."""
        found: set[str] = set()
        for equation in self.equations:
            others = [t for t in self._conditions() if t in self.points]
            alike = [
                t for t in others if self.points[t].shape[1:] == self.points[equation].shape[1:]
            ]
            places = self.places(equation, alike)
            found |= {t for t, place in places.items() if _away(place).any()}
        return sorted(found)

    @quantity("ranges of the points", dict)
    def ranges(self) -> dict[str, list[tuple[float, float]]]:
        """Equation -> smallest and largest value of each coordinate of its points."""
        known = {t: self.points[t] for t in self.equations if t in self.points}
        return {
            t: list(zip(x.amin(0).tolist(), x.amax(0).tolist(), strict=True))
            for t, x in known.items()
        }

    @quantity("number of points", nothing)
    def n_points(self) -> int | None:
        """Points of the equations."""
        counts = [len(self.points[t]) for t in self.equations if t in self.points]
        return max(counts) if counts else None


def differing(x: Tensor, r: Tensor) -> float:
    """Share of r^2, r (N,), that is left of the means over equal rows of x (N, d).

    >>> x = torch.tensor([[0.0], [0.0], [1.0]])
    >>> differing(x, torch.tensor([1.0, -1.0, 0.0])), differing(x, torch.tensor([1.0, 1.0, 2.0]))
    (1.0, 0.0)
    """
    different, place, count = torch.unique(x, dim=0, return_inverse=True, return_counts=True)
    total = float(r.square().sum())
    if len(different) == len(x) or not total:
        return 0.0
    mean = torch.zeros(len(different), dtype=r.dtype, device=r.device).index_add_(0, place, r)
    return float((r - (mean / count)[place]).square().sum()) / total


def _same(x: Tensor | None, other: Tensor) -> bool:
    return x is not None and x.shape == other.shape and bool((x == other).all())


def _away(place: Tensor) -> Tensor:
    """Which points of a box lie at no end of it."""
    return ~(near(place, 0.0) | near(place, 1.0)).any(1)


def near(column: Tensor, place: float) -> Tensor:
    """Which numbers lie at a place, within `AT_START`."""
    return (column - place).abs() <= AT_START
