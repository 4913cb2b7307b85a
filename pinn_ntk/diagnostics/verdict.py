"""Why the training does not go on, in one sentence, or that nothing wrong is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag
from pinn_ntk.looks.look import Look
from pinn_ntk.verdict.diagnose import diagnose
from pinn_ntk.verdict.verdict import Verdict

KEPT = 128
"""Verdicts from the start, and as many last ones, whose findings are kept to compare with."""


class Judgement(Diagnostic):
    """The verdict at each measurement, the earlier ones known; reads last, what others computed.

    Of several looks in one step, the first that accuses counts, else the last.

    Attributes:
        verdicts: Step, which counts on over fits, and verdict.
    """

    name = "verdict"
    tags = (
        Tag(
            "verdict",
            "number of the cause of the verdict, see docs/verdict.md",
            advice="23: nothing wrong is seen; 13: still early; 0: unknown. The text of this name "
            "says the others, with evidence and what helps.",
        ),
    )

    def __init__(self) -> None:
        self.verdicts: list[tuple[int, Verdict]] = []

    @property
    def verdict(self) -> Verdict | None:
        """The last one; None before the first."""
        return self.verdicts[-1][1] if self.verdicts else None

    def reset(self) -> None:
        self.verdicts = []

    def read(self, look: Look) -> Reading:
        before = [(step, one) for step, one in self.verdicts if step != look.total_step]
        this = self.verdicts[len(before) :]
        verdict = diagnose(look, previous=[one for _, one in before if one.findings])
        if this and this[-1][1].accuses:
            verdict = this[-1][1]
        self.verdicts = [*_thinned(before), (look.total_step, verdict)]
        return Reading(look.step, {self.name: int(verdict.cause)}, facts=verdict.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"verdicts": [[step, verdict.state_dict()] for step, verdict in self.verdicts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        kept = state.get("verdicts", [])
        self.verdicts = [(int(step), Verdict.of_state(of)) for step, of in kept]


def in_markdown(verdict: Verdict) -> list[str]:
    """The sentence in bold, and a list of evidence, help and what else there is to say."""
    sentence, *rest = verdict.lines()
    return [f"**Verdict: {sentence}**", "", *(f"- {line}" for line in rest)]


def _thinned(verdicts: list[tuple[int, Verdict]]) -> list[tuple[int, Verdict]]:
    """Without the findings of those in the middle."""
    middle = range(KEPT, len(verdicts) - KEPT)
    return [(s, replace(v, findings={}) if i in middle else v) for i, (s, v) in enumerate(verdicts)]
