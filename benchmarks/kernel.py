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
`benchmarks.measure` for how time and memory are taken, `benchmarks.peers` for the other ways, and
`benchmarks.targets` for the bounds that the figures are held against.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Contestant, measured
from benchmarks.peers import (
    Problem,
    fastest_form,
    make_problem,
    row_batched,
    torch_func_kernel,
    torch_func_kernel_lean,
)
from benchmarks.report import FOLDER, begun, load_average, parser, write
from benchmarks.targets import BACKWARD, FULL, LEAN, ROWS, SCRATCH, STEP, TARGETS, TORCH_FUNC
from pinn_ntk import NTK, empirical_ntk

RESULTS = FOLDER / "kernel.json"
SIZES = ((64, 256), (128, 256), (256, 256), (500, 256), (512, 512))
"""Default widths and numbers of points."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}
"""Errors above these mean that a contestant is wrong."""
SLOW_WORK = 10**10
"""N^2 P from which on torch.func and rows in batches count as slow (seconds to minutes)."""
PARTIAL_POINTS = 32
"""Points of which the reference is taken where torch.func is left out as slow."""


def contestants(problem: Problem, form: str | None) -> dict[str, Contestant]:
    """All contestants by name.

    ``form`` says how torch.func is to take u_xx; None leaves it and rows in batches out.
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
    wide = Problem(problem.model.double(), problem.points.double())
    return torch_func_kernel_lean(wide, "jvp(jvp)")


def configurations(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The figures of each size in each dtype, ready for JSON."""
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
    made = parser(__doc__, RESULTS)
    add = made.add_argument
    add("--sizes", nargs="+", type=_size, default=SIZES, metavar="WxN", help="such as 500x256")
    add("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--repeats", type=int, default=9, help="rounds; slow contestants take part in 2")
    longest = "no more rounds for a contestant that would be timed for longer than this"
    add("--max-seconds", type=float, default=300.0, help=longest)
    add("--skip-slow", action="store_true", help="leave out peers that take seconds to minutes")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    return made.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each configuration and keep all figures as JSON.

    Raises:
        SystemExit: Contestants disagree.
    """
    options = _options(arguments)
    done: list[dict[str, Any]] = []
    report = begun(options.threads, options.device)
    report |= {"repeats": options.repeats, "configurations": done}
    for configuration in configurations(options):
        print(table(configuration))
        print(f"  this process had {busy(configuration):.0%} of a core; load {load_average()}\n")
        done.append(configuration)
        write(options.json, report)
    if disagreeing := {name for configuration in done for name in wrong(configuration)}:
        raise SystemExit(f"not equal to torch.func in float64: {', '.join(sorted(disagreeing))}")


if __name__ == "__main__":
    main()
