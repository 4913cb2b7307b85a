"""Weights of the terms of a training, and the traces that they follow from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinn_ntk.callbacks.weighting.distributed import Traces
from pinn_ntk.weights.trace import TraceRule


class TermWeights:
    """Term -> weight in force, and its last trace and rows, over all steps."""

    def __init__(self, rule: TraceRule) -> None:
        self.rule = rule
        self.reset()

    def reset(self) -> None:
        """Another module is trained."""
        self.weights: dict[str, float] = {}  # term -> lambda_a
        self._traces: Traces = {}

    def rename(self, renamed: dict[str, str]) -> None:
        """Go on under the name of a term that had a number until it was logged."""
        for old, new in renamed.items():
            if old in self.weights:
                self.weights.setdefault(new, self.weights.pop(old))
            if old in self._traces:
                self._traces.setdefault(new, self._traces.pop(old))
        renamed.clear()

    def update(self, measured: Traces) -> dict[str, float]:
        """New weights of the terms measured; what is absent counts with its last trace."""
        traces = self._traces | measured
        weights = self.rule.weights(self.weights, traces, measured)
        self.weights |= weights
        self._traces = traces
        return weights

    def errors(self, of_traces: Mapping[str, float]) -> dict[str, float]:
        """Standard errors of the weights that follow from those of some traces."""
        return self.rule.errors(self.weights, self._traces, of_traces)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"weights": dict(self.weights), "traces": dict(self._traces)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from other weights."""
        self.weights, self._traces = dict(state["weights"]), dict(state["traces"])
