"""Kernel of a PINN residual: this engine, a training step, torch.func, row by row.

    python -m benchmarks.kernel

The residual is u_xx of an MLP 1-[w]*3-1 with tanh at N points. What is compared:

| contestant | starts from | what it does |
| --- | --- | --- |
| training step | points | forward pass, residual, backward pass of its mean square |
| backward pass | live residual | J^T v for a random v; the graph is kept |
| factors | live residual | `empirical_ntk(r, params, certify=False)` |
| factors, trace | live residual | and the exact trace |
| full kernel | live residual | and all of K |
| factors, certified | live residual | `empirical_ntk(r, params)` |
| full kernel, certified | live residual | and all of K |
| full kernel from scratch | points | forward pass, residual, certificate and all of K |
| torch.func | points | vmap(jacrev), K a parameter a time |
| torch.func, lean | points | the same in one buffer, contracted block by block |
| rows in batches | live residual | one vector-Jacobian product a row, batched |

In training the live residual is there already, so what starts from it is what the kernel adds to a
step, in time and in memory; its graph counts for contestants that start from the points. Every K
is compared with that of torch.func in float64 with the same (float32) numbers. See
`benchmarks.measure` for how time and memory are taken, `benchmarks.peers` for the other ways.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.environment import environment, load_average
from benchmarks.measure import Contestant, Record, extra_in_units, measured, ratio
from benchmarks.peers import (
    Problem,
    fastest_form,
    make_problem,
    row_batched,
    torch_func_kernel,
    torch_func_kernel_lean,
)
from pinn_ntk import NTK, empirical_ntk

SIZES = ((64, 256), (128, 256), (256, 256), (500, 256), (512, 512))
"""Default widths and numbers of points."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}
"""Errors above these mean that a contestant is wrong."""
SCHEMA = 1
RESULTS = Path(__file__).parent / "results" / "kernel.json"

SLOW_WORK = 10**10
"""N^2 P from which on torch.func and rows in batches count as slow (seconds to minutes)."""
PARTIAL_POINTS = 32
"""Points of which the reference is taken where torch.func is left out as slow."""

STEP, BACKWARD = "training step", "backward pass"
FULL, SCRATCH = "full kernel", "full kernel from scratch"
TORCH_FUNC, LEAN, ROWS = "torch.func", "torch.func, lean", "rows in batches"


Records = Mapping[str, Record]


@dataclass(frozen=True)
class Target:
    """A bound that a figure is held against.

    Attributes:
        text: What is bounded.
        value: Records -> the figure; KeyError where a contestant did not run.
        bound: The bound.
        at_most: Whether the figure may not exceed the bound; else it may not fall below.
        size: (w, N) for which it is meant.
        dtypes: Names of the dtypes for which it is meant.
    """

    text: str
    value: Callable[[Records], float]
    bound: float
    at_most: bool = True
    size: tuple[int, int] = (500, 256)
    dtypes: tuple[str, ...] = tuple(DTYPES)

    def judged(self, records: Records) -> dict[str, Any]:
        """The target, its figure and whether it is met; both None where nothing was run."""
        stated = {"text": self.text, "bound": self.bound, "at_most": self.at_most}
        try:
            value = self.value(records)
        except KeyError:
            return {**stated, "value": None, "met": None}
        met = value <= self.bound if self.at_most else value >= self.bound
        return {**stated, "value": value, "met": met}


def _steps(name: str) -> Callable[[Records], float]:
    return lambda records: ratio(records[name].wall_s, records[STEP].wall_s)


def _seconds(name: str) -> Callable[[Records], float]:
    return lambda records: records[name].median_s


def _megabytes(name: str) -> Callable[[Records], float]:
    return lambda records: records[name].peak_bytes / 1e6


def _memory(more: str) -> Callable[[Records], float]:
    return lambda records: records[more].peak_bytes / records[FULL].peak_bytes


def _faster(records: Records) -> float:
    """How many times less a full kernel takes than the faster of both torch.func forms."""
    return min(ratio(records[peer].wall_s, records[FULL].wall_s) for peer in (TORCH_FUNC, LEAN))


def _certificate(records: Records) -> float:
    times = (records[name].wall_s for name in ("factors, certified", "factors", BACKWARD))
    return extra_in_units(*times)


def _large(text: str, value: Callable[[Records], float], bound: float) -> Target:
    return Target(text, value, bound, size=(512, 512), dtypes=("float64",))


TARGETS = (
    Target("factors and trace, training steps", _steps("factors, trace"), 0.6),
    Target("full kernel, training steps", _steps(FULL), 2.5),
    Target("torch.func (faster form) / full kernel, time", _faster, 20, at_most=False),
    Target("torch.func / full kernel, memory", _memory(TORCH_FUNC), 20, at_most=False),
    Target("torch.func, lean / full kernel, memory", _memory(LEAN), 20, at_most=False),
    Target("certificate, backward passes", _certificate, 1.0),
    _large("full kernel, seconds", _seconds(FULL), 0.65),
    _large("full kernel, MB", _megabytes(FULL), 200),
    _large("full kernel from scratch, seconds", _seconds(SCRATCH), 0.65),
    _large("full kernel from scratch, MB", _megabytes(SCRATCH), 200),
)


def contestants(problem: Problem, form: str | None) -> dict[str, Contestant]:
    """All contestants by name.

    Args:
        problem: Network and points.
        form: How torch.func is to take u_xx; None leaves it and rows in batches out.
    """
    live = problem.residual()
    probe = torch.randn_like(live)
    leaves = list(problem.model.parameters())

    def backward() -> object:
        return torch.autograd.grad(live, leaves, probe, retain_graph=True, allow_unused=True)

    def kernel(residual: Tensor, *, certify: bool = True) -> NTK:
        return empirical_ntk(residual, problem.model, certify=certify)

    def traced() -> NTK:
        ntk = kernel(live, certify=False)
        ntk.trace("residual")
        return ntk

    found = {
        STEP: Contestant(lambda: _training_step(problem)),
        BACKWARD: Contestant(backward),
        "factors": Contestant(lambda: kernel(live, certify=False), _block),
        "factors, trace": Contestant(traced, _diagonal),
        FULL: Contestant(lambda: kernel(live, certify=False)["residual"], _leading),
        "factors, certified": Contestant(lambda: kernel(live), _block),
        "full kernel, certified": Contestant(lambda: kernel(live)["residual"], _leading),
        SCRATCH: Contestant(lambda: kernel(problem.residual())["residual"], _leading),
    }
    if form is not None:
        found[TORCH_FUNC] = Contestant(lambda: torch_func_kernel(problem, form), _leading)
        found[LEAN] = Contestant(lambda: torch_func_kernel_lean(problem, form), _leading)
        found[ROWS] = Contestant(lambda: row_batched(problem, live), _leading)
    return found


def _training_step(problem: Problem) -> None:
    problem.residual().square().mean().backward()
    problem.model.zero_grad(set_to_none=True)


def _leading(kernel: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    return kernel[: len(truth), : len(truth)], truth


def _block(ntk: NTK, truth: Tensor) -> tuple[Tensor, Tensor]:
    return _leading(ntk["residual"], truth)


def _diagonal(ntk: NTK, truth: Tensor) -> tuple[Tensor, Tensor]:
    return ntk.diagonal("residual")[: len(truth)], truth.diagonal()


def true_kernel(problem: Problem) -> Tensor:
    """Kernel of torch.func in float64 from the numbers of ``problem``, which becomes float64."""
    return torch_func_kernel_lean(
        Problem(problem.model.double(), problem.points.double()), "jvp(jvp)"
    )


def configurations(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure each size in each dtype.

    Yields:
        The figures of one configuration, ready for JSON.
    """
    device = torch.device(options.device)
    for width, points in options.sizes:
        problem = make_problem(width, points, torch.float32, device)
        slow = points**2 * problem.parameters >= SLOW_WORK
        known = PARTIAL_POINTS if options.skip_slow and slow else points
        truth = true_kernel(problem.first(known))
        for name in options.dtype:
            problem = make_problem(width, points, DTYPES[name], device)
            form = fastest_form(problem) if known == points else None
            records = measured(
                contestants(problem, form),
                truth,
                base=STEP,
                peer=TORCH_FUNC,
                repeats=options.repeats,
                max_seconds=options.max_seconds,
            )
            meant = [t for t in TARGETS if t.size == (width, points) and name in t.dtypes]
            yield {
                "width": width,
                "points": points,
                "dtype": name,
                "parameters": problem.parameters,
                "torch_func_form": form,
                "contestants": {key: asdict(record) for key, record in records.items()},
                "targets": [target.judged(records) for target in meant],
            }


def table(configuration: Mapping[str, Any]) -> str:
    """One configuration as text."""
    head = "w = {width}, N = {points}, {dtype}, P = {parameters}".format_map(configuration)
    columns = "ms median      min  x step  x faster        MB  x step  x less     error"
    lines = [head, f"{'':25}{columns}"]
    lines += [_line(name, figures) for name, figures in configuration["contestants"].items()]
    lines += [_verdict(target) for target in configuration["targets"]]
    return "\n".join(lines)


def _line(name: str, figures: Mapping[str, Any]) -> str:
    return (
        f"{name:25}{figures['median_s'] * 1e3:9.2f}{figures['minimum_s'] * 1e3:9.2f}"
        f"{figures['per_base']:8.2f}{_number(figures['speedup'], '10.1f')}"
        f"{figures['peak_bytes'] / 1e6:10.1f}{figures['memory_per_base']:8.2f}"
        f"{_number(figures['memory_saving'], '8.1f')}{_number(figures['error'], '10.1e')}"
    )


def _number(value: float | None, form: str) -> str:
    return "-".rjust(int(form.partition(".")[0])) if value is None else format(value, form)


def _verdict(target: Mapping[str, Any]) -> str:
    sign = "<=" if target["at_most"] else ">="
    said = {True: "met", False: "NOT MET", None: "not measured"}[target["met"]]
    text = f"{target['text']} {sign} {target['bound']:g}"
    return f"  target: {text:58}{_number(target['value'], '9.2f')}  {said}"


def busy(configuration: Mapping[str, Any]) -> float:
    """Share of one core that this process had while it was timed; well below 1: others ran."""
    figures = configuration["contestants"].values()
    return sum(sum(f["cpu_s"]) for f in figures) / sum(sum(f["wall_s"]) for f in figures)


def wrong(configuration: Mapping[str, Any]) -> list[str]:
    """Contestants that disagree with the reference."""
    tolerance = TOLERANCES[configuration["dtype"]]
    errors = {name: f["error"] for name, f in configuration["contestants"].items()}
    return [name for name, error in errors.items() if error is not None and not error <= tolerance]


def _size(text: str) -> tuple[int, int]:
    width, points = text.split("x")
    return int(width), int(points)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sizes", nargs="+", type=_size, default=SIZES, metavar="WxN", help="such as 500x256")
    add("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--repeats", type=int, default=9, help="rounds; slow contestants take part in 2")
    add(
        "--max-seconds",
        type=float,
        default=300.0,
        help="no more rounds for a contestant that would be timed for longer than this",
    )
    add("--skip-slow", action="store_true", help="leave out peers that take seconds to minutes")
    add("--threads", type=int, default=1)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--json", type=Path, default=RESULTS, help="where the figures go")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each configuration and keep all figures as JSON.

    Raises:
        SystemExit: Contestants disagree.
    """
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    done: list[dict[str, Any]] = []
    report = {
        "schema": SCHEMA,
        "environment": environment(torch.device(options.device)),
        "repeats": options.repeats,
        "configurations": done,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for configuration in configurations(options):
        print(table(configuration))
        print(f"  this process had {busy(configuration):.0%} of a core; load {load_average()}\n")
        done.append(configuration)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    disagreeing = {name for configuration in done for name in wrong(configuration)}
    if disagreeing:
        raise SystemExit(f"not equal to torch.func in float64: {', '.join(sorted(disagreeing))}")


if __name__ == "__main__":
    main()
