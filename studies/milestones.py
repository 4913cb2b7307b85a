"""The course of a run as a Markdown table: error, loss terms and their weights at some steps.

    python studies/milestones.py logs/wave_paper/rebalanced 1000 10000 80000

It reads the event files of a log folder, of a run that still goes on, too. Each value is the one
logged nearest to the step, at most 1 % or 10 steps away from it; where there is none, "-" stands.
The losses are those of one batch and unweighted, the total is the sum of the products that stand
in the row. Without an NTKBalancer all weights are 1. The courses of the wave equation in
docs/results.md are made with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from results import markdown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ERROR, LOSS, WEIGHT = "rel_l2", "loss_", "ntk/weight/"
Curves = Mapping[str, Mapping[int, float]]


def read(folder: Path) -> Curves:
    """All scalars of one folder's event files: tag -> step -> value."""
    if not list(folder.glob("events.out.tfevents.*")):
        raise FileNotFoundError(
            f"no event files in {folder}; expected the folder of one run, such as "
            "logs/wave/version_0."
        )
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}


def nearest(curve: Mapping[int, float], step: int) -> float | None:
    """The value logged nearest to a step; None where all are far from it.

    Example:
        >>> nearest({999: 0.3, 1999: 0.2}, 1000), nearest({999: 0.3}, 2000)
        (0.3, None)
    """
    found = min(curve, key=lambda logged: abs(logged - step), default=None)
    if found is None or abs(found - step) > max(10, step / 100):
        return None
    return curve[found]


def row(curves: Curves, terms: Sequence[str], step: int) -> list[float | None]:
    """Error, total, losses and weights at one step."""
    losses = [nearest(curves[term], step) for term in terms]
    weights: list[float | None] = [1.0] * len(terms)
    if any(tag.startswith(WEIGHT) for tag in curves):
        weights = [nearest(curves.get(WEIGHT + term, {}), step) for term in terms]
    known = None not in losses and None not in weights
    total = sum(w * loss for w, loss in zip(weights, losses, strict=True)) if known else None
    return [nearest(curves.get(ERROR, {}), step), total, *losses, *weights]


def table(curves: Curves, steps: Iterable[int]) -> str:
    """Markdown, a row a step."""
    terms = [tag for tag in curves if tag.startswith(LOSS)]
    weights = [f"weight of {term.removeprefix(LOSS)}" for term in terms]
    head = ["step", "relative L2 error", "weighted loss", *terms, *weights]
    lines, forms = [], [".3e"] * (2 + len(terms)) + [".4g"] * len(terms)
    for step in steps:
        values = row(curves, terms, step)
        cells = ["-" if v is None else format(v, f) for v, f in zip(values, forms, strict=True)]
        lines.append([step, *cells])
    return markdown(head, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of one run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="log folder of one run")
    parser.add_argument("steps", type=int, nargs="+")
    options = parser.parse_args(arguments)
    print(table(read(options.folder), options.steps))


if __name__ == "__main__":
    main()
