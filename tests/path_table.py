"""Which network, operator and way of taking derivatives takes which path: writes docs/fast-path.md.

Run from the project's root: ``python -m tests.path_table > docs/fast-path.md``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from pinn_ntk import NTKWarning, empirical_ntk
from tests.cases import CASES, Case

PATH = Path(__file__).parent.parent / "docs" / "fast-path.md"

HEAD = """# Which path a residual takes

Written by `python -m tests.path_table > docs/fast-path.md` from the cases of
the test suite (tests/cases.py). Every case, on either path, agrees with the row-by-row kernel to
a relative error of 1e-12 in float64.

*fast*: factors read off the live graph, one backward pass a component. *generic*: for the
parameters named, one vector-Jacobian product a residual row, after a warning; all others stay fast.

| case (network - residual - derivatives) | path | reason |
| --- | --- | --- |
"""


def row(case: Case) -> str:
    """One line of the table, for the case's first term."""
    residuals, params = case.build()
    first = next(iter(residuals))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NTKWarning)
        kernel = empirical_ntk({first: residuals[first]}, params)
    fallbacks = kernel.jacobian(first).fallbacks
    if not fallbacks:
        return f"| {case.id} | fast | |"
    reasons = "; ".join(sorted(set(fallbacks.values())))
    return f"| {case.id} | generic ({len(fallbacks)} parameters) | {reasons} |"


def table() -> str:
    """The whole page."""
    return HEAD + "\n".join(row(case) for case in CASES) + "\n"


if __name__ == "__main__":
    print(table(), end="")
