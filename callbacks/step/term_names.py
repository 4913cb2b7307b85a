"""Names of terms over the steps of a training: what a term was called once, it stays.

A module may log every n-th step only, and a term may be the whole loss for a while: then the key of
the loss may name it, which goes on as the key of a total when a second term comes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.graph.terms.names import Logged
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.looks.step_terms import UNNAMED

TOTAL = re.compile(r"(.*[/_.])?(loss|total)", re.IGNORECASE)
"""Keys that sound like the whole loss: another key of the same number names a term rather."""
KIND = re.compile(r"\w+\([^()]*\)")
"""Kind and shape of one term in a likeness."""


class TermNames:
    """Remembers the names of terms by their likeness, that is kinds and shapes of all in a step.

    Attributes:
        renamed: Number of a term -> name that was logged later.
        counted: Two names of one term that differ in a number, such as that of the epoch.
    """

    def __init__(self) -> None:
        self.renamed: dict[str, str] = {}
        self.counted: tuple[str, str] | None = None
        self._known: dict[str, dict[int, str]] = {}
        self._totals: set[str] = set()

    def in_order(self, logged: Mapping[str, Logged]) -> dict[str, Logged]:
        """What was logged, that of a total last."""
        return dict(sorted(logged.items(), key=lambda item: self._is_total(item[0])))

    def _is_total(self, key: str) -> bool:
        return key in self._totals or TOTAL.fullmatch(key) is not None

    def of(self, terms: Sequence[Term], totals: Collection[str]) -> list[str]:
        """Names that stay, of terms with those of this step; ``totals`` are keys of all terms."""
        if len(terms) > 1:
            self._totals |= set(totals)
        kinds = [f"{term.kind}{tuple(term.residual.shape)}" for term in terms]
        names = [term.name for term in terms]
        for position, kind in enumerate(kinds):
            name = names[position]
            total = len(terms) == 1 and name in self._totals
            before = self._called(kind) - {name} if total or UNNAMED.fullmatch(name) else set()
            if len(before) == 1 and kinds.count(kind) == 1 and not before & set(names):
                names[position] = before.pop()
        return self._by_position(" ".join(kinds), names)

    def _called(self, kind: str) -> set[str]:
        """Names of the only term of its kind and shape in some step."""
        listed = {likeness: KIND.findall(likeness) for likeness in self._known}
        return {
            self._known[likeness][kinds.index(kind)]
            for likeness, kinds in listed.items()
            if kinds.count(kind) == 1 and kinds.index(kind) in self._known[likeness]
        }

    def _by_position(self, likeness: str, names: list[str]) -> list[str]:
        seen_before = likeness in self._known
        known = self._known.setdefault(likeness, {})
        for position, name in enumerate(names):
            before = known.get(position)
            if name != f"term_{position}":
                if seen_before and before is None:
                    self.renamed[f"term_{position}"] = name
                elif before not in {None, name} and _numberless(before) == _numberless(name):
                    self.counted = str(before), name
                known[position] = name
            elif before not in {None, *names}:
                names[position] = str(before)
        return names

    def tell(self, guard: Guard) -> None:
        """Say, once a fit, that keys hold a number."""
        if self.counted is not None:
            first, second = self.counted
            guard.warn_once(
                "counted",
                f"a term was logged as {first!r} and later as {second!r}, so that it counts as "
                "another one each time the number in its key changes. Log it under one key, or "
                "pass names=[...].",
            )

    def state_dict(self) -> dict[str, dict[int, str]]:
        """Likeness -> position -> name."""
        return {likeness: dict(known) for likeness, known in self._known.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[int, str]]) -> None:
        """Go on with the names of others."""
        self._known = {likeness: dict(known) for likeness, known in state.items()}


def _numberless(name: str | None) -> str:
    return re.sub(r"\d+", "#", name or "")
