"""Which network, operator and way of taking derivatives takes which path: writes docs/fast-path.md.

Run from the project's root: ``python -m tests.path_table > docs/fast-path.md``.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pinn_ntk import NTKWarning, empirical_ntk
from tests import networks
from tests.cases import CASES, Case
from tests.operators import OPERATORS, points

PATH = Path(__file__).parent.parent / "docs" / "fast-path.md"
WIDTH, POINTS = 64, 256
"""Of the networks whose cost is measured."""
ROUNDS = 5

HEAD = f"""# Which path a residual takes

1. Fast: points on an axis of their own, any layers of the table below, any derivatives by autograd
   or torch.func, weights computed from parameters (normalised, factorised, low rank, masked).
2. Slow: what makes each row depend on all points (batch normalisation, attention over points,
   spectral derivatives, a matrix times the network), and operations without a rule.
3. You see it in a warning that names the parameters, the reason and the number of passes, and in
   `kernel.jacobian(term).fallbacks`. Callbacks take `max_rows` (24) such rows at most and mark
   every figure that is an estimate.
4. You avoid it by giving such rows fewer points, or a layer of the table in place of one without a
   rule; `certify=False` does not help. Every case, fast or slow, agrees with the row-by-row kernel
   to 1e-12 in float64.

*fast*: factors read off the live graph, one backward pass a component. *generic*: for the
parameters named, one vector-Jacobian product a residual row, after a warning; all others stay fast.

*trace*, *kernel*: processor time of a certified trace, and of the whole block, in training steps
(forward pass, residual, backward pass of its mean square) of the same network, {WIDTH} wide, at
{POINTS} points, in float64 on one thread. A weight that is multiplied entry by entry (masked,
positive) has a fast trace; its block takes the product of written-out rows, R^2 m n operations, and
so does one without a formula (orthogonal), which is written out for its trace, too.

Written by `python -m tests.path_table > docs/fast-path.md` from the cases of the test suite
(tests/cases.py); the costs differ from machine to machine.

| case (network - residual - derivatives) | path | trace | kernel | reason |
| --- | --- | --- | --- | --- |
"""


def row(case: Case, costs: str) -> str:
    """One line of the table, for the case's first term."""
    residuals, params = case.build()
    first = next(iter(residuals))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NTKWarning)
        kernel = empirical_ntk({first: residuals[first]}, params)
    fallbacks = kernel.jacobian(first).fallbacks
    if not fallbacks:
        return f"| {case.id} | fast | {costs} | |"
    reasons = "; ".join(sorted(set(fallbacks.values())))
    return f"| {case.id} | generic ({len(fallbacks)} parameters) | {costs} | {reasons} |"


def costs(case: Case) -> str:
    """Training steps that a trace and a block take, for the networks under u_xx."""
    network, *rest = case.id.split("-")
    if rest != ["u_xx", "sum"] and network != "batch_norm":
        return " | "
    with patch.object(networks, "WIDTH", WIDTH):
        net = networks.NETWORKS[network](1, 1)
    operator = "grad_u" if network == "batch_norm" else "u_xx"
    x = points(POINTS, 1)

    def residual() -> Tensor:
        return OPERATORS[operator].residual(net, x, "sum")

    live = residual()
    trained = [p for p in net.parameters() if p.requires_grad]
    step = seconds(lambda: backward(residual(), trained))
    trace = seconds(lambda: empirical_ntk(live, net).trace("residual"))
    block = seconds(lambda: empirical_ntk(live, net)["residual"])
    return f"{trace / step:.1f} | {block / step:.1f}"


def backward(residual: Tensor, trained: list[nn.Parameter]) -> None:
    torch.autograd.grad(residual.square().mean(), trained, allow_unused=True)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of the fastest of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def without_costs(page: str) -> str:
    """The page as it is on any machine."""
    return re.sub(r"^(\| \S+ \| [^|]+\|)[^|]*\|[^|]*\|", r"\1 | |", page, flags=re.MULTILINE)


def table(costs_of: Callable[[Case], str] = lambda _: " | ") -> str:
    """The whole page, its costs left out unless they are asked for."""
    return HEAD + "\n".join(row(case, costs_of(case)) for case in CASES) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NTKWarning)
    print(table(costs), end="")
