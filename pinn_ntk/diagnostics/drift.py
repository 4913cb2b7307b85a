"""How far the kernel and the parameters have moved, told apart from a change of points.

| symbol | meaning | shape |
| --- | --- | --- |
| K_ab | block of two loss terms now | (R_a, R_b) |
| K_ab(0) | the same at the first measurement | (R_a, R_b) |
| theta, theta(0) | parameters now and at the first measurement | (P,) |

||K - K(0)||_F / ||K(0)||_F compares two kernels of the same points only (Wang, Yu, Perdikaris
2022, section 7.1). A probe holds its points fixed; those of a training batch are compared by
their fingerprints (`pinn_ntk.graph.jacobian.inputs`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations_with_replacement
from typing import Any, TypeVar

from torch import Tensor

from pinn_ntk.analysis.drift import change_of_parts
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.step_terms import BATCH

K = TypeVar("K")
Pair = tuple[str, str]


class KernelDrift(Diagnostic):
    """Relative change of each block, of the whole kernel and of the parameters.

    A term whose points changed has no drift from then on, and what was kept of it is dropped.

    Example:
        >>> import torch
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> drift = KernelDrift()
        >>> drift.update(empirical_ntk({"pde": w * torch.ones(2)}, [w]), {"w": w}, fixed=True)
        {'pde': 0.0, 'kernel': 0.0, 'parameters': 0.0}
        >>> drift.update(empirical_ntk({"pde": 2 * w * torch.ones(2)}, [w]), {"w": w}, fixed=True)
        {'pde': 3.0, 'kernel': 3.0, 'parameters': 0.0}
    """

    name = "drift"
    tags = (
        Tag(
            "drift/<term>",
            "relative change of K_aa since the first measurement",
            advice=(
                "Below 0.1 the linear theory describes the run; above 0.5 it does not. Only "
                "where the points stay."
            ),
        ),
        Tag(
            "drift/kernel",
            "the same of all blocks, cross blocks included",
            advice="That of the largest blocks: a small term may have moved by far more.",
        ),
        Tag("drift/parameters", "the same of the parameters"),
        Tag("drift/parameters_<group>", "the same of each group, where several are trained"),
    )

    def __init__(self, *, save_start: bool = True) -> None:
        self.save_start = save_start
        self.reset()

    def reset(self) -> None:
        self.terms: tuple[str, ...] = ()  # of the kernel that was seen first
        self._blocks: dict[Pair, Tensor] = {}
        self._params: dict[str, Tensor] = {}
        self._fingerprints: dict[str, str] = {}
        self._moved: dict[str, None] = {}

    def points_renewed(self) -> None:
        self._blocks, self.terms = {}, ()

    def read(self, look: Look) -> Reading:
        """Drift since the first look."""
        drift = self.update(
            look.sampled,
            look.params,
            look.fingerprints,
            fixed=look.points != BATCH,
            groups=look.groups,
        )
        values = finite({f"drift/{name}": value for name, value in drift.items()})
        facts = {"drift": drift, "moved_points": list(self.moved_points)}
        return Reading(look.step, values, facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        moved = readings[self.name].facts["moved_points"]
        if moved:
            yield (
                f"Points: those of {', '.join(moved)} changed since the first measurement, so the "
                "drift of their kernel is not defined. NTKMonitor(probe=...) measures on points "
                "that stay."
            )

    @property
    def moved_points(self) -> tuple[str, ...]:
        """Terms whose points changed since they were first seen, so that they have no drift."""
        return tuple(self._moved)

    def update(
        self,
        kernel: NTK,
        params: Mapping[str, Tensor],
        fingerprints: Mapping[str, str | None] | None = None,
        *,
        fixed: bool = False,
        groups: Mapping[str, str] | None = None,
    ) -> dict[str, float]:
        """Drift since the first call."""
        of_params = self._of_parameters(params, groups or {})
        result: dict[str, float] = {}
        self.terms = self.terms or kernel.terms
        if not fixed:
            self._compare_points(kernel, fingerprints or {})
        seen = self._start(kernel)
        known = [t for t in kernel.terms if self._comparable(kernel, t) and (fixed or t in seen)]
        for term in known:
            tag = f"{term}_" if term in {"kernel", *of_params} else term
            result[tag] = self._relative(kernel, [(term, term)])
        if known and kernel.terms == self.terms == tuple(known):
            result["kernel"] = self._relative(kernel, _pairs(kernel.terms))
        return result | of_params

    def state_dict(self) -> dict[str, Any]:
        if not self.save_start:
            return {}
        return {
            "terms": list(self.terms),
            "blocks": [[a, b, block.cpu()] for (a, b), block in self._blocks.items()],
            "params": {name: tensor.cpu() for name, tensor in self._params.items()},
            "fingerprints": dict(self._fingerprints),
            "moved": list(self._moved),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self.terms = tuple(state["terms"])
        self._blocks = {(a, b): block for a, b, block in state["blocks"]}
        self._params = dict(state["params"])
        self._fingerprints = dict(state["fingerprints"])
        self._moved = dict.fromkeys(state["moved"])

    def _compare_points(self, kernel: NTK, fingerprints: Mapping[str, str | None]) -> None:
        """Note the terms whose points changed, and drop what was kept of them."""
        for term in kernel.terms:
            now = fingerprints.get(term)
            first = now if now is None else self._fingerprints.setdefault(term, now)
            block = self._blocks.get((term, term))
            if now != first or (block is not None and len(block) != kernel.rows(term)):
                self._moved[term] = None
        self._blocks = {p: b for p, b in self._blocks.items() if self._moved.keys().isdisjoint(p)}

    def _start(self, kernel: NTK) -> set[str]:
        """Keep the blocks of terms not seen before; returns those that were."""
        seen = {term for term in kernel.terms if (term, term) in self._blocks}
        fresh = [t for t in kernel.terms if t not in seen and t not in self._moved]
        first = not self._blocks and kernel.terms == self.terms
        for a, b in _pairs(fresh) if first else [(term, term) for term in fresh]:
            self._blocks[a, b] = kernel[a, b].detach().clone()
        return seen

    def _comparable(self, kernel: NTK, term: str) -> bool:
        block = self._blocks.get((term, term))
        return block is not None and len(block) == kernel.rows(term)

    def _relative(self, kernel: NTK, pairs: list[Pair]) -> float:
        """Change over these blocks together; a cross block counts twice, as its mirror image."""
        if any(pair not in self._blocks for pair in pairs):
            return math.nan
        return _change(self._blocks, ((p, kernel[p], 1.0 if p[0] == p[1] else 2.0) for p in pairs))

    def _of_parameters(
        self, params: Mapping[str, Tensor], groups: Mapping[str, str]
    ) -> dict[str, float]:
        if not self._params:
            self._params = {name: p.detach().clone() for name, p in params.items()}
        parts = {"parameters": list(params)}
        for name in params:
            if name in groups:
                parts.setdefault(f"parameters_{groups[name]}", []).append(name)
        if len(parts) == 2:  # a single group, which says nothing new
            parts.popitem()
        return {
            tag: _change(self._params, ((name, params[name].detach(), 1.0) for name in names))
            for tag, names in parts.items()
            if all(n in self._params and self._params[n].shape == params[n].shape for n in names)
        }


def _change(start: dict[K, Tensor], now: Iterable[tuple[K, Tensor, float]]) -> float:
    """Relative change since the start, which moves to where the tensors of now are."""

    def parts() -> Iterator[tuple[Tensor, Tensor, float]]:
        for key, tensor, times in now:
            start[key] = start[key].to(tensor.device)
            yield tensor, start[key], times

    return change_of_parts(parts())


def _pairs(terms: Iterable[str]) -> list[Pair]:
    return list(combinations_with_replacement(terms, 2))
