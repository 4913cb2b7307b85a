"""The command line and the result files of the benchmarks, and what they ran on.

Nothing in a result names a machine or a path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

SCHEMA = 1
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"


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


def read(path: str | Path) -> dict[str, Any]:
    """The figures of an earlier run."""
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def environment(device: torch.device) -> dict[str, object]:
    """Hardware, software and load of this moment, ready for JSON."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "load_average": load_average(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "torch_config": torch_config(),
    }


def load_average() -> list[float] | None:
    """Runnable processes over the last 1, 5 and 15 minutes; None where the system does not say."""
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def commit() -> str | None:
    """Hash of the checkout, marked where the measured code differs from it; None without git."""
    short = _git("rev-parse", "--short=12", "HEAD")
    if not short:
        return None
    changed = _git("status", "--porcelain", "--", "pinn_ntk", "benchmarks")
    return f"{short} with changes" if changed else short


def torch_config() -> dict[str, str]:
    """How torch was built: compiler, linear algebra and instruction set; no build paths."""
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()[1:]]
    settings = dict(
        setting.strip().split("=", 1)
        for line in lines
        if line.startswith("Build settings: ")
        for setting in line.removeprefix("Build settings: ").split(", ")
        if setting.strip().startswith(("BLAS_INFO=", "LAPACK_INFO=", "BUILD_TYPE="))
    )
    kept = [line for line in lines if "Build settings" not in line and "/" not in line]
    return {"build": "; ".join(kept), **settings}


def cpu_model() -> str:
    """Name of the processor of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
