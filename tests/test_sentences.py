"""Every sentence over extreme numbers: none is unreadable, and none says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from pinn_ntk.analysis.definiteness import Definiteness
from pinn_ntk.callbacks.trainer.announcement import Done, end_line, start_line
from pinn_ntk.graph.terms.constant import Constant
from tests.looks import said

NUMBERS = [0.0, 1e-300, 3e-9, 0.0456, 0.9999, 1.0, 1.004, 2.5, 99.6, 123.4, 45678.0, 1e300]
SIGNED = [*NUMBERS, -1e-300, -0.05, -1.0, -123.4]

BAD = {
    "exponent of a small number": r"\de\+0[0-5]\b",
    "not a number": r"\bnan\b|\binf\b",
    "factor of one": r"factor of 1(?!\.?\d)|(?<![\d.])1 times\b",
    "plural of one": r"(?<![\d.])1 (rows|directions|steps|different ones|measurements|updates)\b",
    "singular of several": r"\b[2-9] (row|direction|step|measurement|update)\b(?!s)",
    "nothing between marks": r"  |\.\.|[:;,] *[.;,]|(?<!\w)\( *\)",
    "minus nothing": r"-0(?![.\d])",
    "too many digits": r"\d{8,}|[1-9]\d*\.\d{4,}",
}


def unreadable(text: str) -> list[str]:
    return [what for what, pattern in BAD.items() if re.search(pattern, text)]


def definiteness(rank: int, rows: int, smallest: float, outside: float | None) -> str:
    groups = ((0, 1),) if rank < rows > 1 else ()
    found = Definiteness("pde", rows, 40, rank, smallest, 1e-9, groups, 0, {}, outside)
    return f"{found.statement} {found.cause}"


def spectrum(rank: int, number: float) -> dict[str, Any]:
    facts = {"rank": rank, "rows": 2, "floor": number, "lambda_max": number}
    return {"terms": {"pde": {**facts, "effective_rank": float(rank), "condition": 1.0}}}


def of_one(make: Callable[[float], dict[str, Any]], numbers: list[float]) -> Iterator[str]:
    return (said(**make(number)) for number in numbers)


def of_two(make: Callable[[float, float], dict[str, Any]]) -> Iterator[str]:
    return (said(**make(a, b)) for a, b in product(NUMBERS, NUMBERS))


SENTENCES: dict[str, Callable[[], Iterator[str]]] = {
    "weights": lambda: of_two(lambda a, b: {"weights": {"weights": {"pde": a, "bc": b}}}),
    "spectrum": lambda: of_one(lambda a: {"spectrum": spectrum(min(2, int(a)), a)}, NUMBERS),
    "step size": lambda: of_two(lambda a, b: {"step_size": {"bound": a, "lr": b}}),
    "sample": lambda: of_two(
        lambda a, b: {
            "step": {"sampled": {"pde": [2, 3]}},
            "traces": {"traces": {"pde": a}, "errors": {"pde": b}},
        }
    ),
    "prediction": lambda: (
        said(predicted_decrease={"step": 3, "ratio": ratio, "predicted": predicted})
        for ratio, predicted in product(SIGNED, [None, 1.0, -1.0])
    ),
    "groups": lambda: of_one(
        lambda a: {
            "groups": {
                "groups": {"network": {"pde": a}, "inverse": {"pde": 1.0}},
                "traces": {"pde": 1 + a},
            }
        },
        NUMBERS,
    ),
    "rows without rank": lambda: (
        said(rank={"pde": {"broadcast": "", "still": n, "rows": 4, "searched": 4, "equal": m}})
        for n, m in product(range(4), range(4))
    ),
    "certificate": lambda: of_one(lambda a: {"certificate": {"worst": a}}, NUMBERS[:4]),
    "definiteness": lambda: (
        definiteness(rank, rows, number, outside)
        for rank, rows in ((0, 1), (1, 1), (1, 2), (2, 2), (3, 9))
        for number, outside in product(NUMBERS[1:], [None, 0.0, 1e-7, 0.0214, 0.9999, 1.0])
    ),
    "start and end": lambda: (
        line
        for a, n in product(NUMBERS, (0, 1, 2))
        for line in (
            start_line({"pde": n}, [("NTKMonitor", "measured every step")], []),
            end_line([Done("NTKMonitor", "measurement", n)], {"pde": a}, min(a, 1.0)),
        )
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_are_readable_whatever_the_numbers(name: str):
    texts = [line for text in SENTENCES[name]() for line in text.splitlines() if "| " not in line]
    assert texts
    assert {text: bad for text in texts if (bad := unreadable(text))} == {}


def test_unreadable_sentences_are_recognised():
    for text in ("about 1e+02 %", "within a factor of 1.", "1 rows", "so: .", "nan", "-0, 2 row."):
        assert unreadable(text), text


def test_rounding_belongs_to_the_constant():
    assert not Constant(1e-9, 1e-8).seen
    assert Constant(float("nan"), 1e-8).seen
