"""The points of the terms: whether they repeat, where the residual is large, what lies between.

Points are what goes into the networks. Fresh ones lie between a point and its nearest neighbour, so
that walls and initial lines keep theirs; they are put in the place of the tensors that hold the
points, if those are found: permuted, they permute the residual, and nothing else does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.looks.rerun import Change, Ran
from pinn_ntk.verdict.moves import between, beyond, movable, outside_of
from pinn_ntk.verdict.quantity import CannotBeLookedAtError, nothing, quantity
from pinn_ntk.verdict.reruns import Reruns
from pinn_ntk.verdict.terms import rms

AT_START = 0.05
"""Distance from the first time, over all of it, up to which a condition is one at the start."""

ELSEWHERE = 0.3
"""Share of old points outside of the new ones from which they lie elsewhere."""

EARLY = 0.3
"""Share of the time that is early."""


class Points(Reruns):
    """Quantities of the points."""

    @property
    def calls_of(self) -> dict[str, NetworkCall]:
        """Term -> the call of a network behind it that has most of its rows."""
        if "calls_of" not in self.__dict__:
            self.__dict__["calls_of"] = {} if self.base is None else _calls(self.base)
        return self.__dict__["calls_of"]  # type: ignore[no-any-return]

    @property
    def points(self) -> dict[str, Tensor]:
        """Term -> points of that call, (N, d)."""
        every = {term: _columns(call.inputs) for term, call in self.calls_of.items()}
        return {term: x for term, x in every.items() if x is not None}

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
            if x is None or not r.ndim or len(x) != len(r) or not float(r.norm()):
                continue
            r = r.reshape(len(r), -1).norm(dim=1)  # of all components
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
        x = self.points.get(equation)
        others = [p for t, p in self.points.items() if t not in self.equations]
        if x is None or not others or any(p.shape[1] != x.shape[1] for p in others):
            return None
        low, size = x.min(0).values, x.max(0).values - x.min(0).values
        places = [(p - low) / size.clamp(min=1e-12) for p in others]
        first = [k for k in range(x.shape[1]) if any(_near(p[:, k], 0.0).all() for p in places)]
        last = {k for k in range(x.shape[1]) if any(_near(p[:, k], 1.0).any() for p in places)}
        alone = [k for k in first if k not in last] if x.shape[1] == 1 else first
        return alone[0] if len(alone) == 1 else None

    @quantity("tensors that hold the points", dict)
    def holders(self) -> dict[str, list[str]]:
        """Equation -> names of the tensors whose rows are its points."""
        if self.previous and self.previous[-1].get("holders"):
            return dict(self.previous[-1]["holders"])
        found = movable(self.rerun)
        return {term: names for term, names in found.items() if term in self.equations}

    @quantity("fresh points", dict)
    def fresh(self) -> dict[str, float]:
        """Equation -> mean square of its residual between the points, over that at the points."""
        return self._ratios(between)

    @quantity("points outside of those of the equation", dict)
    def outside(self) -> dict[str, float]:
        """The same where other terms have points and the equation has none; empty if nowhere."""
        return self._ratios(beyond)

    def _ratios(self, move: Any) -> dict[str, float]:
        _ = self.rerun
        if not self.equations:
            raise CannotBeLookedAtError("the equation could not be told from conditions")
        if not self.holders:
            raise CannotBeLookedAtError("no tensor of batch or module holds its points")
        found = {}
        for term, names in self.holders.items():
            held = {name: self.base.tensors[name] for name in names}  # type: ignore[union-attr]
            moved = move(held, self._aligned(term, held))
            if moved is None:
                continue
            ran = self.rerun(Change(tensors=partial(_put, moved)))
            before = self.rms[term]
            if before > 0:
                found[term] = (rms(self.counted(term, ran.residuals[term])) / before) ** 2
        return found

    @quantity("old points", nothing)
    def forgotten(self) -> tuple[str, float] | None:
        """Term and ratio of its mean square at points of earlier measurements to that of now.

        Of points that lie elsewhere: those drawn anew from the same place are not old.
        """
        if not self.look.earlier or self.look.module is None:
            return None
        now = {name: p.detach() for name, p in self.look.module.named_parameters()}
        ratios: dict[str, float] = {}
        for old in self.look.earlier:
            ran = old.with_parameters(now)()
            for term in ran.residuals.keys() & self.rms.keys() & self.points.keys():
                x = _columns(_calls(ran)[term].inputs) if term in _calls(ran) else None
                new = self.points[term]
                if x is None or x.shape[1] != new.shape[1] or outside_of(x, new) < ELSEWHERE:
                    continue
                ratio = (rms(ran.residuals[term]) / self.rms[term]) ** 2
                ratios[term] = max(ratio, ratios.get(term, 0.0))
        worst = max(ratios, key=ratios.__getitem__, default=None)
        return None if worst is None else (worst, ratios[worst])

    @quantity("points that moved", dict)
    def moved(self) -> dict[str, float]:
        """Term -> share of its points of the last measurement that lie outside of those of now."""
        if not self.look.earlier:
            return {}
        before = _calls(self.look.earlier[-1]())
        found = {}
        for term in before.keys() & self.points.keys():
            old, new = _columns(before[term].inputs), self.points[term]
            if old is not None and old.shape[1] == new.shape[1]:
                found[term] = outside_of(old, new)
        return found

    def _aligned(self, term: str, held: Mapping[str, Tensor]) -> list[Tensor]:
        """Points of the other terms, columns as in the tensors held; none where these differ."""
        own = self.points.get(term)
        columns = torch.cat([t.detach().reshape(len(t), -1) for t in held.values()], 1)
        if own is None or own.shape != columns.shape:
            return []
        order = []
        for column in columns.to(own).T:
            same = [k for k in range(own.shape[1]) if bool((own[:, k] == column).all())]
            order += same[:1]
        others = [x for t, x in self.points.items() if t != term and x.shape[1] == own.shape[1]]
        return [x[:, order] for x in others] if len(set(order)) == own.shape[1] else []

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


def _computed(x: Tensor) -> bool:
    """Whether a tensor depends on parameters."""
    if x.grad_fn is None:
        return False
    return any(isinstance(nodes.leaf(n), nn.Parameter) for n in postorder(nodes.origin(x)[0]))


def _near(column: Tensor, place: float) -> Tensor:
    return (column - place).abs() <= AT_START


def _put(moved: Mapping[str, Tensor], name: str, tensor: Tensor) -> Tensor:
    return moved.get(name, tensor)


def _calls(ran: Ran) -> dict[str, NetworkCall]:
    own = _own_nodes(ran)
    found: dict[str, NetworkCall] = {}
    for term, residual in ran.residuals.items():
        if residual.grad_fn is None:
            continue
        behind = postorder(nodes.origin(residual)[0]).keys()
        for call, of_call in zip(ran.calls, own, strict=True):
            x, most = _columns(call.inputs), found.get(term)
            if any(_computed(one) for one in call.inputs):  # a layer's, by what came before it
                continue
            if x is None or residual.numel() % max(1, len(x)) or not of_call & behind:
                continue
            if most is None or len(x) > len(most.inputs[0]):
                found[term] = call
    return found


def _own_nodes(ran: Ran) -> list[set[Node]]:
    """For each call the nodes that no other has; a residual of derivatives lacks the output."""
    graphs = [
        set(postorder(nodes.origin(call.output)[0])) if call.output.grad_fn is not None else set()
        for call in ran.calls
    ]
    shared = Counter(node for graph in graphs for node in graph)
    return [{n for n in g if shared[n] == 1 and nodes.leaf(n) is None} for g in graphs]


def _columns(inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Inputs side by side, (N, d)."""
    flat = [x.detach().reshape(len(x), -1) for x in inputs if x.ndim]
    if not flat or any(len(x) != len(flat[0]) for x in flat):
        return None
    return torch.cat([x.to(flat[0]) for x in flat], 1)
