"""The command line and the result files of the benchmarks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"


def parser(description: str | None, results: Path) -> argparse.ArgumentParser:
    """The options of a benchmark, with those that all have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--json", type=Path, default=results, help="where the figures go")
    return made


def begun(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Set the threads; what stands above the figures of every benchmark."""
    torch.set_num_threads(threads)
    return {"schema": SCHEMA, "environment": environment(torch.device(device))}


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Keep all figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
