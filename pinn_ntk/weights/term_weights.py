"""Weights of the terms of a training, and the traces that they follow from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pinn_ntk.callbacks.weighting.distributed import Traces
from pinn_ntk.weights.trace import TraceRule


class TermWeights:
    """Term -> weight in force, and its last trace and rows, over all steps.

    An update may take several steps, since not all terms are in every batch: the terms seen so far
    get their weights of all traces known, and `waiting` are those that are still to come.
    """

    def __init__(self, rule: TraceRule) -> None:
        self.rule = rule
        self.reset()

    def reset(self) -> None:
        """Another module is trained."""
        self.weights: dict[str, float] = {}  # term -> lambda_a
        self._traces: Traces = {}
        self._known: dict[str, None] = {}  # names, in the order in which they came
        self._before: dict[str, float] = {}  # weights before the update
        self._seen: dict[str, None] = {}  # terms that were part of it
        self._passed: set[str] = set()  # those that are there and are not measured

    @property
    def measured(self) -> bool:
        """Whether there was an update."""
        return bool(self._traces)

    @property
    def waiting(self) -> list[str]:
        """Terms known that were not part of the last update."""
        return [n for n in self._known if n not in self._seen and n not in self._passed]

    def meet(self, names: Iterable[str]) -> None:
        """These terms are there."""
        self._known |= dict.fromkeys(names)

    def pass_over(self, names: Iterable[str]) -> None:
        """These terms are there, and nobody says what to measure of them: none waits for them."""
        self._passed |= set(names)

    def begin(self) -> None:
        """An update is due."""
        self._before, self._seen = dict(self.weights), {}

    def rename(self, renamed: dict[str, str]) -> None:
        """Go on under the name of a term that had a number until it was logged."""
        held: list[dict[str, Any]] = [
            self.weights, self._traces, self._known, self._before, self._seen
        ]  # fmt: skip
        for old, new in renamed.items():
            for by_name in held:
                if old in by_name:
                    by_name.setdefault(new, by_name.pop(old))
        renamed.clear()

    def update(self, measured: Traces) -> dict[str, float]:
        """New weights of the terms of this update; what is absent counts with its last trace.

        A term without rows is known, no more.
        """
        self.meet(measured)
        new = {name: of_term for name, of_term in measured.items() if of_term[1]}
        self._passed -= set(new)
        traces, seen = self._traces | new, self._seen | dict.fromkeys(new)
        weights = self.rule.weights(self._before, traces, seen)
        self.weights |= weights
        self._traces, self._seen = traces, seen
        return weights

    def errors(self, of_traces: Mapping[str, float]) -> dict[str, float]:
        """Standard errors of the weights that follow from those of some traces."""
        return self.rule.errors(self.weights, self._traces, of_traces)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        running = {"before": dict(self._before), "seen": list(self._seen)}
        known = {"known": list(self._known)}
        return {"weights": dict(self.weights), "traces": dict(self._traces), **running, **known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from other weights; earlier versions knew of no update under way."""
        self.weights, self._traces = dict(state["weights"]), dict(state["traces"])
        self._before = dict(state.get("before", self.weights))
        self._known = dict.fromkeys(state.get("known", self._traces))
        self._seen = dict.fromkeys(state.get("seen", self._traces))
