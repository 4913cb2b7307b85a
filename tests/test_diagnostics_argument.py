"""``NTKMonitor(diagnostics=...)``: some of what there is, and what users write themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from pinn_ntk import FactoredJacobian
from pinn_ntk.callbacks import NTKMonitor
from pinn_ntk.diagnostics import Diagnostic, Reading, Tag
from pinn_ntk.diagnostics.registry import BY_NAME
from pinn_ntk.diagnostics.traces import Traces
from pinn_ntk.errors import NTKWarning
from tests.pinn import ONE_BATCH, Pinn, batch, build, fit, told_once
from tests.written import column, events, summaries
from tests.zoo import compare

OVERHEAD = "ntk/overhead_fraction"
TRACES = {"ntk/trace/pde", "ntk/trace/bc"}


class Largest(Diagnostic):
    """The largest entry of each residual, and how often it was looked at."""

    name = "largest"
    tags = (Tag("largest/<term>", "largest entry of the residual", "r"),)
    looks = 0

    def read(self, look):
        self.looks += 1
        return Reading(
            look.step, {f"largest/{t}": r.abs().max() for t, r in look.residuals.items()}
        )

    def sentences(self, readings):
        yield f"Largest entry of pde: {readings[self.name].values['largest/pde']:.3g}."

    def figure(self):
        from matplotlib.figure import Figure

        return "largest", Figure(figsize=(2, 1))

    def state_dict(self):
        return {"looks": self.looks}

    def load_state_dict(self, state):
        self.looks = state.get("looks", 0)


class Named(Diagnostic):
    """One that an instance names, or does not."""

    def __init__(self, name: str = "") -> None:
        self.name, self.title = name, f"the {name}"

    def read(self, look):
        return Reading(look.step, {f"{self.name}/step": look.step})


def largest_by_hand() -> dict[str, float]:
    residuals = build().residuals(batch())
    return {f"ntk/largest/{name}": float(r.detach().abs().max()) for name, r in residuals.items()}


# --- Which


def test_only_what_is_asked_for_is_measured_and_traces_need_no_block(
    monkeypatch: pytest.MonkeyPatch,
):
    formed, gram = [], FactoredJacobian.gram
    counted = lambda self, *given: (formed.append(self), gram(self, *given))[1]  # noqa: E731
    monkeypatch.setattr(FactoredJacobian, "gram", counted)
    few, all_ = NTKMonitor(diagnostics=["traces"]), NTKMonitor()
    fit(build(), few, steps=3)
    assert set(few.history) == {*TRACES, OVERHEAD}
    assert formed == []
    assert few.spectra == {}
    fit(build(), all_, steps=3)
    assert formed != []
    for tag in TRACES:
        np.testing.assert_allclose(few.history[tag], all_.history[tag], rtol=1e-13)


CHOICES: dict[str, tuple[list[Any], set[str]]] = {
    "none": ([], set()),
    "names": (["learning_rate", "traces"], {*TRACES, "ntk/lr"}),
    "objects": ([Named("mine"), Traces()], {*TRACES, "ntk/mine/step"}),
    "mixed": (
        [Named("mine"), Named("yours"), "learning_rate"],
        {"ntk/mine/step", "ntk/yours/step", "ntk/lr"},
    ),
}


@pytest.mark.parametrize(("given", "tags"), CHOICES.values(), ids=list(CHOICES))
def test_names_and_objects(given: list[Any], tags: set[str]):
    monitor = NTKMonitor(diagnostics=given)
    compare(Pinn, monitor, fit={"steps": 2})
    assert set(monitor.history) == {*tags, OVERHEAD}


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "string": ("traces", TypeError, r"diagnostics is the string 'traces'; .* as in \['traces'\]"),
    "no list": (Traces(), TypeError, "diagnostics is <.*Traces.*>; expected a list of names and"),
    "unknown": (["trace"], ValueError, r"no diagnostic 'trace'; there are \['spectrum', 'traces',"),
    "class": ([Traces], TypeError, "Traces'>; .* one of the names .*not the class itself"),
    "number": ([3], TypeError, "a diagnostic is 3; expected one of the names"),
    "twice": (["drift", "drift"], ValueError, r"diagnostics has \['drift'\] twice"),
    "name taken": ([Named("drift"), "drift"], ValueError, r"twice; give each of yours a name of"),
    "no name": ([Named()], ValueError, r"Named\.name is ''; expected a name of its own"),
    "step": ([Named("step")], ValueError, r"Named\.name is 'step'; expected a name of its own"),
}


@pytest.mark.parametrize(("given", "error", "said"), WRONG.values(), ids=list(WRONG))
def test_wrong_ones_are_refused_when_the_monitor_is_made(
    given: Any, error: type[Exception], said: str
):
    with pytest.raises(error, match=said):
        NTKMonitor(diagnostics=given)


def test_keys_of_checkpoints_are_made_of_names():
    assert NTKMonitor().state_key == "NTKMonitor"
    everything = NTKMonitor(diagnostics=list(BY_NAME))
    assert list(everything.panel.diagnostics) == list(NTKMonitor().panel.diagnostics)
    monitor = NTKMonitor(diagnostics=[Named("mine"), "traces"])
    assert monitor.state_key == "NTKMonitor{'diagnostics': ['traces', 'mine']}"
    assert monitor.state_key == NTKMonitor(diagnostics=["traces", Named("mine")]).state_key


def test_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    config = tmp_path / "config.yaml"
    config.write_text(f"""
        trainer:
          accelerator: cpu
          callbacks:
            - class_path: pinn_ntk.callbacks.NTKMonitor
              init_args:
                diagnostics:
                  - drift
                  - traces
                  - class_path: {__name__}.Largest
                  - class_path: {__name__}.Named
                    init_args: {{name: mine}}
    """)
    silent = {"save_config_callback": None, "seed_everything_default": False, "run": False}
    cli = LightningCLI(Pinn, args=["--config", str(config)], **silent)
    (monitor,) = [c for c in cli.trainer.callbacks if isinstance(c, NTKMonitor)]
    assert list(monitor.panel.diagnostics) == ["traces", "drift", "largest", "mine"]
    assert isinstance(monitor.panel.diagnostics["largest"], Largest)


# --- A user's own


def test_what_it_reads_goes_where_all_the_rest_goes(tmp_path: Path):
    board, table = TensorBoardLogger(tmp_path), CSVLogger(tmp_path)
    monitor = NTKMonitor(diagnostics=["traces", Largest()])
    run = fit(build(), monitor, steps=1, logger=[board, table])
    log = events(board.log_dir)
    for tag, expected in largest_by_hand().items():
        assert monitor.history[tag].tolist() == [[0, expected]]
        assert float(run.callback_metrics[tag]) == expected
        assert [event.value for event in log.Scalars(tag)] == [np.float32(expected)]
        assert column(table.log_dir, tag) == {0: expected}
    said = f"- Largest entry of pde: {largest_by_hand()['ntk/largest/pde']:.3g}."
    assert said in summaries(log)[0]
    (image,) = log.Images("ntk/figure/largest")
    assert (image.step, image.width, image.height) == (0, 200, 100)


def resumed(folder: Path, diagnostic: Any) -> tuple[dict[str, Any], pl.Trainer]:
    """States in the checkpoint of a fit of three steps, and what goes on from there."""
    monitor = NTKMonitor(every_n_steps=1, diagnostics=["traces", diagnostic])
    fit(build(), monitor, steps=3, **ONE_BATCH).save_checkpoint(folder / "half.ckpt")
    states = torch.load(folder / "half.ckpt", weights_only=True)["callbacks"]
    again = NTKMonitor(every_n_steps=1, diagnostics=["traces", type(diagnostic)()])
    fit(build(), again, steps=5, ckpt=folder / "half.ckpt", **ONE_BATCH)
    return states[monitor.state_key]["diagnostics"], again


def test_its_state_is_in_checkpoints_and_comes_back(tmp_path: Path):
    saved, monitor = resumed(tmp_path, Largest())
    assert saved["states"]["largest"] == {"looks": 3}
    assert monitor.panel.diagnostics["largest"].looks == 5
    assert len(monitor.history["ntk/largest/pde"]) == 5


class Hoarder(Largest):
    """Its state holds an object of its own, which ``weights_only=True`` refuses."""

    def state_dict(self):
        return {"looks": self.looks, "tag": self.tags[0]}


class LateHoarder(Largest):
    """So does what it reads when the optimizer has moved."""

    def stepped(self, look):
        return Reading(look.step, {"late": 1.0}, facts={"tag": self.tags[0]})


@pytest.mark.parametrize("kind", [Hoarder, LateHoarder])
def test_a_state_that_would_not_load_is_left_out_of_the_checkpoint(tmp_path: Path, kind: Any):
    with told_once("the state of diagnostic 'largest' is left out of the checkpoint"):
        saved, monitor = resumed(tmp_path, kind())
    assert "largest" not in saved["states" if kind is Hoarder else "late"]
    assert monitor.panel.diagnostics["largest"].looks == (2 if kind is Hoarder else 5)


# --- One that fails


HOOKS = (
    "reset", "fit_starts", "batch_starts", "read", "stepped", "follow", "batch_ends", "fit_ends",
    "sentences", "figure", "state_dict",
)  # fmt: skip


def failing(hook: str) -> Diagnostic:
    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no such luck")

    return type("Failing", (Largest,), {hook: fail, "waits": hook == "follow"})()


@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_fails_is_told_of_once_and_changes_nothing(hook: str, tmp_path: Path):
    monitor = NTKMonitor(every_n_steps=2, diagnostics=["traces", failing(hook)])
    options = {"steps": 5, "logger": TensorBoardLogger(tmp_path)}
    said = "largest failed with RuntimeError: no such luck. Training goes on; "
    with told_once(f"^NTKMonitor: .*{said}"):
        if hook == "reset":
            fit(build(), monitor, steps=1)  # of another module
        module, _ = compare(Pinn, monitor, fit=options, optimizer="adam")
        for number in range(2):
            module.trainer.save_checkpoint(tmp_path / f"{number}.ckpt")
            torch.load(tmp_path / f"{number}.ckpt", weights_only=True)
    assert monitor.history["ntk/trace/pde"][:, 0].tolist() == [0, 2, 4]


def test_a_state_that_it_refuses_is_told_of_and_the_rest_goes_on(tmp_path: Path):
    kept, refusing = (NTKMonitor(diagnostics=[d]) for d in (Largest(), failing("load_state_dict")))
    fit(build(), kept, steps=2, **ONE_BATCH).save_checkpoint(tmp_path / "half.ckpt")
    with pytest.warns(NTKWarning, match="loading the largest failed with RuntimeError: no such"):
        fit(build(), refusing, steps=3, ckpt=tmp_path / "half.ckpt", **ONE_BATCH)
    assert refusing.history["ntk/largest/pde"][:, 0].tolist() == [0, 1, 2]


GIVEN = [3.5, {"largest/pde": 1.0}, "a"]


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: type(given).__name__)
def test_what_is_no_reading_costs_no_other_diagnostic(given: Any):
    diagnostic = type("Odd", (Largest,), {"read": lambda self, look: given})()
    monitor = NTKMonitor(diagnostics=["traces", diagnostic])
    kind = type(given).__name__
    with pytest.warns(NTKWarning, match=rf"TypeError: Odd read a {kind}; expected a Reading\(look"):
        fit(build(), monitor, steps=1)
    assert set(monitor.history) == {*TRACES, OVERHEAD}
