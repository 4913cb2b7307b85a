"""Train a script of this folder four times, and say what the callbacks saw, as JSON.

python tests/libraries/run.py pina
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("MKL_CBWR", "COMPATIBLE")  # trainings are compared bit by bit

import torch
from arrived import of_loggers, of_plain_loop  # beside this script

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.diagnostics import Diagnostic, Reading
from pinn_ntk.diagnostics.registry import BY_NAME
from pinn_ntk.errors import NTKWarning

FOLDER = Path(__file__).parent


class TermPaths(Diagnostic):
    """Whether rows were computed one by one."""

    name = "path"

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.rows: dict[str, int] = {}

    def read(self, look: Any) -> Reading:
        for term in look.kernel.terms:
            slow = look.kernel.jacobian(term).fallbacks
            self.seen[term] = f"rows: {sorted(slow.values())[0]}" if slow else "fast"
            self.rows[term] = look.residuals[term].numel()
        return Reading(look.step)


def script(name: str) -> ModuleType:
    """A file of this folder, under a name that no library has."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", FOLDER / f"with_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # torch.compile looks it up
    spec.loader.exec_module(module)
    return module


def parameters(trainer: Any) -> torch.Tensor:
    net = getattr(trainer, "lightning_module", None) or trainer.net
    return torch.cat([p.detach().double().flatten() for p in net.parameters()])


def digits(value: float) -> float:
    return float(f"{value:.3g}")


def tagged(last: dict[str, float], tag: str) -> dict[str, float]:
    """Term -> last value of a family of tags."""
    start = f"ntk/{tag}/"
    return {t.removeprefix(start): digits(v) for t, v in last.items() if t.startswith(start)}


def report(made: ModuleType) -> dict[str, Any]:
    """Four trainings: plain, plain again, with the monitor, with monitor and balancer."""
    train, names = made.train, getattr(made, "NAMES", None)
    plain, again = parameters(train([])), parameters(train([]))
    path = TermPaths()
    monitor = NTKMonitor(every_n_steps=100, names=names, diagnostics=[*BY_NAME, path])
    monitored = parameters(train([monitor]))
    last = monitor.history.last()
    balancer = NTKBalancer(every_n_steps=50, names=names)
    balanced = parameters(train([NTKMonitor(every_n_steps=100, names=names), balancer]))
    return {
        "terms": path.rows,
        "path": path.seen,
        "measured": [int(step) for step in monitor.history["ntk/certificate"][:, 0]],
        "certificate": digits(monitor.history["ntk/certificate"][:, 1].max()),
        "overhead_fraction": digits(last["ntk/overhead_fraction"]),
        "trace": tagged(last, "trace"),
        "effective_weight": tagged(last, "effective_weight"),
        "verdict": str(monitor.verdict).splitlines(),
        "weights": {term: digits(weight) for term, weight in balancer.weights.items()},
        "repeatable": torch.equal(plain, again),
        "bit_identical": torch.equal(plain, monitored),
        "balancer_acts": not torch.equal(plain, balanced),
    }


def of_deepxde(made: ModuleType) -> dict[str, Any]:
    """The same with the callback of DeepXDE, which has a history of its own."""
    plain, again = parameters(made.train([])), parameters(made.train([]))
    monitor = made.NTKCallback(every=100)
    monitored = parameters(made.train([monitor]))
    last, paths = monitor.history.last(), {t: s[-1][1] for t, s in monitor.spectra.items()}
    balancer = made.NTKCallback(every=50, balancing=made.Balancing("trace"))
    balanced = made.train([balancer])
    return {
        "terms": {term: len(spectrum.eigenvalues) for term, spectrum in paths.items()},
        "path": monitor.paths,
        "measured": [int(step) for step in monitor.history["ntk/certificate"][:, 0]],
        "certificate": digits(monitor.history["ntk/certificate"][:, 1].max()),
        "overhead_fraction": digits(last["ntk/overhead_fraction"]),
        "trace": tagged(last, "trace"),
        "effective_weight": tagged(last, "effective_weight"),
        "verdict": str(monitor.verdict).splitlines(),
        "weights": tagged(balancer.history.last(), "weight"),
        "repeatable": torch.equal(plain, again),
        "bit_identical": torch.equal(plain, monitored),
        "balancer_acts": not torch.equal(plain, parameters(balanced)),
    }


REPORTS: dict[str, Callable[[ModuleType], dict[str, Any]]] = {
    "deepxde": of_deepxde,
    "loggers": of_loggers,
    "plain_loop": of_plain_loop,
}


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """In a folder of its own, with nothing printed; our warnings are collected."""
    here, told = Path.cwd(), []
    with tempfile.TemporaryDirectory() as folder, Path(folder, "out").open("w") as out:
        with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(out):
            warnings.simplefilter("always")
            with contextlib.redirect_stderr(out):
                os.chdir(folder)
                yield told
                os.chdir(here)
        told += [str(w.message) for w in said if issubclass(w.category, NTKWarning)]


def shown(out: dict[str, Any]) -> str:
    """JSON, a line an entry; a line a sentence."""
    lines = []
    for key, value in out.items():
        spread = key == "verdict" or (key == "warnings" and value)
        text = json.dumps(value, indent=1).replace("\n", "\n ") if spread else json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"


def main(name: str) -> None:
    with quiet() as told:
        made = script(name)
        out = REPORTS.get(name, report)(made)
    print(shown(out | {"warnings": told}))


if __name__ == "__main__":
    main(sys.argv[1])
