"""A verdict on one measured step: cause, evidence, confidence, remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.cause import Cause

FACT, LIKELY, POSSIBLE = "fact", "likely", "possible"
"""How sure a verdict is: proved by what was measured; seldom wrong; worth a try."""


NOTHING = 1e-12
"""Size below which a number is said to be 0, unless it is compared with such."""


class Evidence(NamedTuple):
    """One number that a verdict rests on."""

    quantity: str  # in words
    value: float
    threshold: str  # what it was compared with, in words, such as "below 0.1 is solved"

    def __str__(self) -> str:
        compared = f" ({self.threshold})" if self.threshold else ""
        exact = float(self.value).is_integer() and abs(self.value) < 1e6
        value = 0.0 if abs(self.value) < NOTHING else self.value
        return f"{self.quantity} {int(value) if exact else number(value)}{compared}"


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a training at one step, if anything is.

    Attributes:
        cause: The cause.
        about: Term or parameter that it concerns; empty for the whole loss.
        evidence: What it rests on.
        confidence: "fact", "likely" or "possible".
        remedy: What to do, in a sentence or two.
        title: The cause in words, more closely than `Cause.title` where it has several forms.
        also: What else was seen, a sentence each.
        not_looked_at: What could not be looked at and why, a sentence each.
        step: Step that it is of.
        findings: The numbers that all rules were given; `diagnose` compares with them later.

    Example:
        >>> seen = Evidence("rms of bc over that of u = 0", 0.8, "below 0.1 is solved")
        >>> verdict = Verdict(Cause.IMBALANCE, "bc", (seen,), LIKELY, "Weigh bc by 100.")
        >>> print(verdict)
        imbalance of the terms (likely): bc
        Seen: rms of bc over that of u = 0 0.8 (below 0.1 is solved).
        Help: Weigh bc by 100.
    """

    cause: Cause
    about: str = ""
    evidence: tuple[Evidence, ...] = ()
    confidence: str = LIKELY
    remedy: str = ""
    title: str = ""
    also: tuple[str, ...] = ()
    not_looked_at: tuple[str, ...] = ()
    step: int = 0
    findings: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.cause.title)

    @property
    def accuses(self) -> bool:
        """Whether it says that something is wrong."""
        return self.cause not in {Cause.CLEAN, Cause.EARLY, Cause.UNKNOWN}

    @property
    def worthless(self) -> bool:
        """Whether training on is of no use: a fact that no further step mends."""
        certain = self.confidence == FACT or self.cause is Cause.DIVERGED
        return certain and self.cause in WORTHLESS

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        about = f": {self.about}" if self.about else ""
        return f"{self.title} ({self.confidence}){about}"

    def lines(self) -> list[str]:
        """At most five lines for a terminal: the sentence, evidence, help, what else, what not."""
        listed: Sequence[tuple[str, Sequence[object]]] = (
            ("Seen", self.evidence),
            ("Help", [self.remedy] if self.remedy else []),
            ("Also", self.also[:2]),
            ("Not looked at", self.not_looked_at),
        )
        said = [
            (head, "; ".join(str(part).rstrip(".") for part in parts)) for head, parts in listed
        ]
        return [self.sentence, *(f"{head}: {text}." for head, text in said if text)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def state_dict(self) -> dict[str, Any]:
        """Plain values, which checkpoints may hold."""
        state = asdict(self) | {"cause": int(self.cause), "findings": dict(self.findings)}
        lists = {"also": [*self.also], "not_looked_at": [*self.not_looked_at]}
        return state | lists | {"evidence": [[*one] for one in self.evidence]}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Verdict:
        """The verdict that gave a state."""
        lists = {name: tuple(state[name]) for name in ("also", "not_looked_at")}
        evidence = tuple(Evidence(*one) for one in state["evidence"])
        return cls(**{**state, **lists, "cause": Cause(state["cause"]), "evidence": evidence})


WORTHLESS = {Cause.DIVERGED, Cause.DETACHED, Cause.NOT_TRAINED, Cause.BROADCAST}
