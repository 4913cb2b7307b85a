"""Weights of the terms of a training, and the costs that they follow from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pinn_ntk.weights.limits import Limits
from pinn_ntk.weights.rule import BalancingRule, Costs


class TermWeights:
    """Term -> weight in force, and its last cost and rows, over all steps.

    An update may take several steps, since not all terms are in every batch: the terms seen so far
    get their weights of all costs known, and `waiting` are those that are still to come.
    """

    def __init__(self, rule: BalancingRule, limits: Limits) -> None:
        self.rule, self.limits = rule, limits
        self.reset()

    def reset(self) -> None:
        """Another module is trained."""
        self.weights: dict[str, float] = {}  # term -> lambda_a in force, by the rule times `factor`
        self.factor = 1.0  # that all weights share, so that descent is stable
        self._costs: Costs = {}
        self._known: dict[str, None] = {}  # names, in the order in which they came
        self._before: dict[str, float] = {}  # weights by the rule before the update
        self._seen: dict[str, None] = {}  # terms that were part of it
        self._weighed: set[str] = set()  # terms that had a cost in an earlier update
        self._passed: set[str] = set()  # those that are there and are not measured

    @property
    def measured(self) -> bool:
        """Whether there was an update."""
        return bool(self._costs)

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
        self._before, self._seen = self.by_rule, {}
        self._weighed |= {name for name, (cost, _) in self._costs.items() if cost != 0}

    @property
    def by_rule(self) -> dict[str, float]:
        """Term -> lambda_a without the factor that all share."""
        return {name: weight / self.factor for name, weight in self.weights.items()}

    def rename(self, renamed: dict[str, str]) -> None:
        """Go on under the name of a term that had a number until it was logged."""
        held: list[dict[str, Any]] = [
            self.weights, self._costs, self._known, self._before, self._seen
        ]  # fmt: skip
        for old, new in renamed.items():
            for by_name in held:
                if old in by_name:
                    by_name.setdefault(new, by_name.pop(old))
        renamed.clear()

    def update(self, measured: Costs) -> dict[str, float]:
        """New weights of the terms of this update; what is absent counts with its last cost.

        A term without rows is known, no more; one whose cost is 0 keeps its weight, unless that is
        so of all. ValueError where those are all, or a weight is not finite.
        """
        self.meet(measured)
        new = {n: (float(cost), rows) for n, (cost, rows) in measured.items() if rows}
        self._passed -= set(new)
        costs, seen = self._costs | new, self._seen | dict.fromkeys(new)
        targets = self.rule.weights(costs)
        by_rule = {name: self._after(name, targets[name]) for name in seen if name in targets}
        weights = {name: self.factor * weight for name, weight in by_rule.items()}
        if not all(map(math.isfinite, weights.values())):
            raise ValueError(f"the weights {weights} are not finite; the costs are {costs}.")
        self.weights |= weights
        self._costs, self._seen = costs, seen
        return weights

    def _after(self, name: str, target: float) -> float:
        first = name not in self._weighed
        return self.limits.after(self._before.get(name, 1.0), target, first=first)

    def scale(self, factor: float) -> None:
        """Weigh all terms by one factor besides the rule."""
        self.weights |= {name: factor * weight for name, weight in self.by_rule.items()}
        self.factor = factor

    def errors(self, of_costs: Mapping[str, float]) -> dict[str, float]:
        """Standard errors of the weights that follow from those of some costs.

        What ``ema`` keeps has none.
        """
        found = self.rule.errors(self.weights, self._costs, of_costs)
        return {name: (1 - self.limits.ema) * error for name, error in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        running = {"before": dict(self._before), "seen": list(self._seen)}
        known = {"known": list(self._known), "weighed": sorted(self._weighed)}
        of_rule = {"rule": self.rule.title, "factor": self.factor, "traces": dict(self._costs)}
        return {"weights": dict(self.weights), **of_rule, **running, **known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from other weights; costs of another rule are left behind, so an update is due.

        Earlier versions knew of no update under way, and of traces alone.
        """
        by_trace = self.rule.title if self.rule.name == "trace" else ""
        same = state.get("rule", by_trace) == self.rule.title
        costs = dict(state["traces"]) if same else {}
        self.weights, self._costs = dict(state["weights"]), costs
        self.factor = float(state.get("factor", 1.0))
        self._before = dict(state.get("before", self.by_rule))
        self._known = dict.fromkeys(state.get("known", costs))
        self._seen = dict.fromkeys(state.get("seen", costs) if same else ())
        self._weighed = set(state.get("weighed", costs)) if same else set()
