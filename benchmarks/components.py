"""Components in one residual tensor against the same rows as separate terms.

    python -m benchmarks.components

The residual is the Laplacian of each of C outputs of an MLP 2-[64]*4-C with tanh at 150 points, in
float64. The base is C terms r[:, i:i+1]; the others are one tensor of the same C N rows. Each gives
all of K, or the traces, from live residuals. Times are processor times. The target is 1.5 times the
base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Contestant, Record, measured, ratio
from benchmarks.report import FOLDER, begun, parser, write
from pinn_ntk import NTK, empirical_ntk

RESULTS = FOLDER / "components.json"
BASE = "separate terms"
BOUND = 1.5
LAYOUTS: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "last axis": lambda parts: torch.cat(list(parts), 1),
    "first axis": lambda parts: torch.stack([part[:, 0] for part in parts]),
    "stacked": lambda parts: torch.stack(list(parts), -1),
    "one after another": lambda parts: torch.cat(list(parts)),
    "interleaved": lambda parts: torch.cat(list(parts), 1).flatten(),
}


def laplacians(count: int, width: int, points: int) -> tuple[nn.Module, list[Tensor]]:
    """A network of ``count`` outputs, and the Laplacian of each at the points, (N, 1)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = [2, *[width] * 4]
        layers = [m for a, b in pairwise(sizes) for m in _layer(a, b)]
        net = nn.Sequential(*layers, nn.Linear(width, count)).double()
        x = torch.rand(points, 2, dtype=torch.float64).requires_grad_()
    u = net(x)
    gradients = [torch.autograd.grad(u[:, i].sum(), x, create_graph=True)[0] for i in range(count)]
    return net, [_second(g, x, 0) + _second(g, x, 1) for g in gradients]


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(inputs, outputs), nn.Tanh()


def _second(gradient: Tensor, x: Tensor, axis: int) -> Tensor:
    summed = gradient[:, axis].sum()
    return torch.autograd.grad(summed, x, create_graph=True)[0][:, axis : axis + 1]


def contestants(net: nn.Module, parts: Sequence[Tensor], what: str) -> dict[str, Contestant]:
    """Separate terms and each layout, by name."""
    columns = torch.cat(list(parts), 1)
    terms = {str(i): columns[:, i : i + 1] for i in range(len(parts))}

    def run(residuals: dict[str, Tensor]) -> Contestant:
        return Contestant(lambda: _formed(empirical_ntk(residuals, net, certify=False), what))

    return {BASE: run(terms)} | {name: run({"r": join(parts)}) for name, join in LAYOUTS.items()}


def _formed(kernel: NTK, what: str) -> object:
    return kernel.matrix() if what == "K" else [kernel.trace(term) for term in kernel.terms]


def compared(count: int, what: str, options: Any) -> dict[str, Any]:
    """Figures of one number of components, ready for JSON."""
    net, parts = laplacians(count, options.width, options.points)
    records = measured(
        contestants(net, parts, what),
        parts[0],
        base=BASE,
        peer="",
        repeats=options.repeats,
        max_seconds=options.max_seconds,
    )
    figures = {name: asdict(record) for name, record in records.items()}
    bounds = {name: _times(record, records[BASE]) for name, record in records.items()}
    return {"components": count, "what": what, "contestants": figures, "times_of_base": bounds}


def _times(record: Record, base: Record) -> dict[str, float]:
    return {"time": ratio(record.cpu_s, base.cpu_s), "memory": record.memory_per_base}


def table(found: dict[str, Any]) -> str:
    """One number of components as text."""
    lines = [f"C = {found['components']}, {found['what']}{'x time  x memory':>35}"]
    for name, times in found["times_of_base"].items():
        verdict = "met" if max(times.values()) <= BOUND else f"NOT MET (at most {BOUND})"
        lines.append(f"  {name:30}{times['time']:8.2f}{times['memory']:10.2f}  {verdict}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table a number of components, and keep all figures as JSON."""
    made = parser(__doc__, RESULTS)
    made.add_argument("--components", nargs="+", type=int, default=[2, 4, 10])
    made.add_argument("--width", type=int, default=64)
    made.add_argument("--points", type=int, default=150)
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument("--max-seconds", type=float, default=300.0)
    options = made.parse_args(arguments)
    done: list[dict[str, Any]] = []
    report = begun(options.threads) | {"configurations": done}
    for count in options.components:
        for what in ("K", "traces"):
            done.append(compared(count, what, options))
            print(table(done[-1]))
            write(options.json, report)


if __name__ == "__main__":
    main()
