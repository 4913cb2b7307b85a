"""The verdict beside a training: when it is told and where, and that it goes on after a break."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.util import tensor_util
from torch import Tensor

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.diagnostics.verdict import KEPT, Judgement
from pinn_ntk.looks.plain import is_plain
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.verdict import FACT, LIKELY, Evidence, Verdict
from tests.looks import look_at, rows
from tests.pinn import Pinn, fit, ours, trainer
from tests.scripts import python
from tests.written import events, summaries
from tests.zoo import CutOff, Manual, Noted, Stream, make, steps_of

EARLY = Verdict(Cause.EARLY, confidence=LIKELY, remedy="Wait.")
CLEAN = Verdict(Cause.CLEAN, confidence=LIKELY)
SEEN = (Evidence("rms of bc", 0.8, "below 0.1 is solved"),)
IMBALANCE = Verdict(
    Cause.IMBALANCE, "bc", SEEN, LIKELY, "Weigh bc by 100.", also=("pde is slow",),
    not_looked_at=("fresh points (give residuals=)",),
)  # fmt: skip
BROADCAST = Verdict(Cause.BROADCAST, "bc", SEEN, FACT, "Give both one shape.")
DIVERGED = Verdict(Cause.DIVERGED, "bc", (), FACT, "A smaller learning rate.")


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[Verdict]], list[Any]]:
    """Let the verdict at each look be the next one of a list, the last one for good."""

    def script(verdicts: Iterable[Verdict]) -> list[Any]:
        left, asked = list(verdicts), []

        def diagnose(look: Any, *, previous: Any = ()) -> Verdict:
            asked.append((look.step, len(previous)))
            one = left.pop(0) if left[1:] else left[0]
            return replace(one, step=look.step, findings={"n": len(asked)})

        monkeypatch.setattr("pinn_ntk.diagnostics.verdict.diagnose", diagnose)
        return asked

    return script


def texts(folder: str | Path, tag: str = "ntk/verdict") -> dict[int, str]:
    written = events(folder).Tensors(f"{tag}/text_summary")
    return {e.step: tensor_util.make_ndarray(e.tensor_proto)[0].decode() for e in written}


def causes(monitor: NTKMonitor) -> dict[int, Cause]:
    return {step: verdict.cause for step, verdict in monitor.verdicts}


# --- Kept and logged


def test_each_measurement_has_a_verdict_that_knows_those_before(says: Any):
    asked = says([EARLY, IMBALANCE, CLEAN])
    monitor = NTKMonitor(every_n_steps=2)
    fit(make(Pinn), monitor, steps=6)
    assert causes(monitor) == {0: 13, 2: 18, 4: 23, 5: 23}
    assert monitor.verdict is monitor.verdicts[-1][1]
    assert asked == [(0, 0), (2, 1), (4, 2), (5, 3)]
    assert monitor.history["ntk/verdict"].tolist() == [[0, 13], [2, 18], [4, 23], [5, 23]]


def test_the_text_is_written_first_last_and_where_the_cause_changes(says: Any, tmp_path: Path):
    says([EARLY, EARLY, IMBALANCE, replace(IMBALANCE, about="pde"), CLEAN, CLEAN])
    logger = TensorBoardLogger(tmp_path)
    fit(make(Pinn), NTKMonitor(every_n_steps=1), logger=logger, steps=6)
    written = texts(logger.log_dir)
    assert list(written) == [0, 2, 4, 5]
    assert written[2].splitlines() == [
        "**Verdict: imbalance of the terms (likely): bc**",
        "",
        "- Seen: rms of bc 0.8 (below 0.1 is solved).",
        "- Help: Weigh bc by 100.",
        "- Also: pde is slow.",
        "- Not looked at: fresh points (give residuals=).",
    ]
    scalars = events(logger.log_dir).Scalars("ntk/verdict")
    assert [(e.step, e.value) for e in scalars] == list(enumerate([13, 13, 18, 18, 23, 23]))


def test_the_summary_begins_with_it(says: Any, tmp_path: Path):
    says([IMBALANCE])
    logger = TensorBoardLogger(tmp_path)
    fit(make(Pinn), NTKMonitor(), logger=logger, steps=2)
    for text in summaries(events(logger.log_dir)).values():
        assert text.startswith("**Verdict: imbalance of the terms (likely): bc**\n\n- Seen: rms")
        assert "\n\n**Kernel at step" in text


def test_what_is_not_asked_for_has_no_verdict():
    monitor = NTKMonitor(diagnostics=["traces"])
    fit(make(Pinn), monitor, steps=2)
    assert (monitor.verdict, monitor.verdicts) == (None, [])
    assert "ntk/verdict" not in monitor.history
    assert monitor.state_dict()["progress"] == {}


# --- On the terminal


def said(caplog: pytest.LogCaptureFixture, *callbacks: Any, **options: Any) -> list[str]:
    caplog.clear()
    with caplog.at_level("INFO"):
        fit(options.pop("module", None) or make(Pinn), *callbacks, **options)
    return told(caplog)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if line.startswith(("NTK", "Verdict")) and "matplot" not in line]


def test_when_the_fit_ends_it_stands_on_the_terminal(says: Any, caplog: Any):
    says([EARLY, IMBALANCE])
    start, end, verdict = said(caplog, NTKMonitor(), NTKBalancer(), steps=3)
    assert start.startswith("NTKMonitor, NTKBalancer: pde")
    assert end.startswith("NTKMonitor, NTKBalancer: 2 measurements")
    assert verdict.splitlines() == [
        "Verdict at step 2: imbalance of the terms (likely): bc",
        "  Seen: rms of bc 0.8 (below 0.1 is solved).",
        "  Help: Weigh bc by 100.",
        "  Also: pde is slow.",
        "  Not looked at: fresh points (give residuals=).",
    ]


def test_two_monitors_have_one_each(says: Any, caplog: Any):
    says([CLEAN])
    lines = said(caplog, NTKMonitor(), NTKMonitor(every_n_steps=3), steps=2)
    assert [line.partition(":")[0] for line in lines[2:]] == [
        "Verdict (ntk) at step 1", "Verdict (ntk_2) at step 1",
    ]  # fmt: skip


def test_who_is_not_verbose_is_silent(says: Any, caplog: Any):
    says([IMBALANCE])
    assert said(caplog, NTKMonitor(verbose=False), steps=2) == []
    start, end = said(caplog, NTKMonitor(verbose=False), NTKBalancer(), steps=2)
    assert start.startswith("NTKBalancer: pde")
    assert end.startswith("NTKBalancer: ")
    start, end, verdict = said(caplog, NTKMonitor(verbose=False), NTKMonitor(), steps=2)
    assert start.startswith("NTKMonitor: pde")
    assert verdict.startswith("Verdict at step 1")


def test_other_ranks_are_silent_and_judge_nothing(
    says: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
):
    from lightning_utilities.core.rank_zero import rank_zero_only

    says([IMBALANCE])
    start = Pinn.on_train_start
    monkeypatch.setattr(
        Pinn, "on_train_start", lambda self: (setattr(rank_zero_only, "rank", 1), start(self))
    )
    try:
        assert said(caplog, NTKMonitor(), steps=2) == []
    finally:
        rank_zero_only.rank = 0


@pytest.mark.parametrize(
    ("error", "seen"), [(KeyboardInterrupt(), SystemExit), (ZeroDivisionError(), ZeroDivisionError)]
)
def test_a_fit_cut_off_has_its_verdict(
    says: Any, caplog: Any, tmp_path: Path, error: BaseException, seen: type[BaseException]
):
    import signal

    says([EARLY, IMBALANCE])
    module, before = make(CutOff), signal.getsignal(signal.SIGINT)
    module.error = error
    logger = TensorBoardLogger(tmp_path)
    try:
        with pytest.raises(seen):
            said(caplog, NTKMonitor(every_n_steps=2), module=module, logger=logger, steps=9)
    finally:
        signal.signal(signal.SIGINT, before)
    assert told(caplog)[-1].startswith("Verdict at step 2: imbalance of the terms (likely): bc\n")
    assert list(texts(logger.log_dir)) == [0, 2]


def test_verbose_is_an_argument_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["pytest"])  # LightningCLI wonders about others
    callback = {"class_path": "pinn_ntk.callbacks.NTKMonitor", "init_args": {"verbose": False}}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    of_trainer = {"max_steps": 1, "accelerator": "cpu", **quiet, "callbacks": [callback]}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"trainer": of_trainer | {"enable_checkpointing": False}}))
    cli = LightningCLI(Pinn, run=False, args=["--config", str(file)], seed_everything_default=False)
    (monitor,) = [c for c in cli.trainer.callbacks if isinstance(c, NTKMonitor)]
    assert monitor.verbose is False
    assert repr(monitor) == "NTKMonitor(verbose=False)"


# --- Facts that make a run worthless


def warned_in(*callbacks: Any, **options: Any) -> list[str]:
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(options.pop("module", None) or make(Pinn), *callbacks, **options)
    return ours(caught)


def test_a_fact_that_makes_a_run_worthless_is_warned_of_at_once_and_once(says: Any):
    says([EARLY, EARLY, BROADCAST])
    (warning,) = warned_in(NTKMonitor(every_n_steps=1), NTKMonitor(every_n_steps=2), steps=5)
    assert warning == (
        "NTKMonitor: at step 1: broadcast residual (fact): bc. Seen: rms of bc 0.8 (below 0.1 is "
        "solved). Help: Give both one shape."
    )


@pytest.mark.parametrize("verdict", [IMBALANCE, replace(BROADCAST, confidence=LIKELY), EARLY])
def test_nothing_else_is_warned_of(says: Any, verdict: Verdict):
    says([verdict])
    assert warned_in(NTKMonitor(every_n_steps=1), steps=3) == []


class Diverges(Pinn):
    """NaN in all rows of "bc" from the third step on."""

    def residuals(self, batch: Any) -> Any:
        found = super().residuals(batch)
        return found | {"bc": found["bc"] * (float("nan") if self.global_step > 1 else 1.0)}


class Detached(Pinn):
    def losses(self, residuals: Any) -> Any:
        return super().losses({n: r.detach() if n == "bc" else r for n, r in residuals.items()})


class Broadcast(Pinn):
    def residuals(self, batch: Any) -> Any:
        found = super().residuals(batch)
        return found | {"bc": found["bc"] - batch["ends"].flatten()}


class Forgotten(Pinn):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net[-1].parameters(), lr=0.01)


WORTHLESS = {
    "diverges": (Diverges, Cause.DIVERGED),
    "detached": (Detached, Cause.DETACHED),
    "broadcast": (Broadcast, Cause.BROADCAST),
    "forgotten": (Forgotten, Cause.NOT_TRAINED),
}


@pytest.mark.parametrize(("kind", "cause"), WORTHLESS.values(), ids=list(WORTHLESS))
@pytest.mark.parametrize("several", [False, True])
def test_one_warning_on_one_thing(kind: type[Pinn], cause: Cause, several: bool):
    monitors = [NTKMonitor(every_n_steps=1), NTKMonitor(every_n_steps=2)][: 1 + several]
    warnings = warned_in(*monitors, module=make(kind), steps=4)
    assert monitors[0].verdict is not None
    assert (monitors[0].verdict.cause, monitors[0].verdict.confidence) == (cause, FACT)
    assert len(warnings) == 1, warnings


# --- Checkpoints


def state_of(monitor: NTKMonitor) -> Any:
    return torch.load(_saved(monitor), weights_only=True)


def _saved(monitor: NTKMonitor) -> Any:
    import io

    file = io.BytesIO()
    torch.save(monitor.state_dict(), file)
    file.seek(0)
    return file


def test_verdicts_are_in_checkpoints(says: Any):
    says([EARLY, IMBALANCE])
    monitor, other = NTKMonitor(every_n_steps=2), NTKMonitor(every_n_steps=2)
    fit(make(Pinn), monitor, steps=4)
    assert is_plain(monitor.state_dict()["progress"])
    other.load_state_dict(state_of(monitor))
    assert other.verdicts == monitor.verdicts
    assert [v.findings for _, v in other.verdicts] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert other.facts.progress.state_dict() == monitor.facts.progress.state_dict()


def test_another_module_has_verdicts_of_its_own(says: Any):
    asked = says([IMBALANCE])
    monitor = NTKMonitor(every_n_steps=2)
    fit(make(Pinn), monitor, steps=4)
    fit(make(Pinn), monitor, steps=2)
    assert list(causes(monitor)) == [0, 1]
    assert asked[-2:] == [(0, 0), (1, 1)]
    assert monitor.facts.progress.steps == 2


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.parametrize("kind", ["adam", "lbfgs"])
def test_a_resumed_run_has_the_verdicts_of_one_that_was_left_alone(tmp_path: Path, kind: str):
    def run(steps: int, ckpt: Path | None = None) -> tuple[NTKMonitor, Any]:
        monitor = NTKMonitor(every_n_steps=4)
        fitted = trainer(monitor, steps=steps, max_epochs=-1)
        fitted.fit(make(Pinn, optimizer=kind), Stream(), ckpt_path=ckpt)
        return monitor, fitted

    whole, _ = run(40)
    _, half = run(19)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = run(40, tmp_path / "half.ckpt")
    # the run that was cut off measured its last step, too
    expected = {step: verdict.cause for step, verdict in whole.verdicts}
    assert {step: c for step, c in causes(resumed).items() if step != 18} == expected
    assert resumed.facts.progress.state_dict() == whole.facts.progress.state_dict()
    assert resumed.facts.progress.steps == 40


def test_findings_of_those_in_the_middle_are_let_go(says: Any):
    says([EARLY])
    judgement = Judgement()
    for step in range(2 * KEPT + 3):
        judgement.read(replace(look_at({"pde": rows(2)}, step), total_step=step))
    bare = [step for step, verdict in judgement.verdicts if not verdict.findings]
    assert bare == [KEPT, KEPT + 1]
    assert len(judgement.verdicts) == 2 * KEPT + 3


def test_of_several_losses_in_a_step_the_first_that_is_accused_counts(says: Any):
    asked = says([CLEAN, IMBALANCE, EARLY])
    judgement = Judgement()
    given = [judgement.read(look_at({"pde": rows(2)}, 0)).values["verdict"] for _ in range(3)]
    assert given == [23, 18, 18]
    assert [verdict.cause for _, verdict in judgement.verdicts] == [18]
    assert [before for _, before in asked] == [0, 0, 0]


# --- Progress in a Trainer


OPTIMIZERS: dict[str, Any] = {
    "plain": (lambda m: torch.optim.SGD(m.parameters(), lr=1e-3), {}, 1.0),
    "clipped": (
        lambda m: torch.optim.SGD(m.parameters(), lr=1e-3), {"gradient_clip_val": 1e-6}, 1e-3
    ),
    "accumulated": (
        lambda m: torch.optim.SGD(m.parameters(), lr=1e-3), {"accumulate_grad_batches": 2}, 1.0
    ),
    "momentum": (lambda m: torch.optim.SGD(m.parameters(), lr=1e-3, momentum=0.9), {}, None),
    "lbfgs": (lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=3), {}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_seen_as_they_were_taken(name: str):
    optimizer, options, share = OPTIMIZERS[name]
    monitor, losses = NTKMonitor(), []

    class Tells(Noted):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss.detach()))
            return loss

    fit(make(Tells, optimizer=optimizer), monitor, steps=12, **options)
    progress = monitor.facts.progress
    assert progress.steps == 12
    assert progress.first == pytest.approx(torch.tensor(losses[0]).log10().item(), rel=1e-6)
    assert progress.scheduled == pytest.approx(12 * (0.1 if name == "lbfgs" else 1e-3))
    if share == 1.0:
        assert progress.travelled == pytest.approx(12e-3, rel=1e-9)
    elif share is not None:
        assert 0 < progress.travelled < share * 12e-3
    else:
        assert progress.travelled > 1.5 * 12e-3
    if name == "lbfgs":
        assert len(losses) > 24


def test_the_first_loss_and_optimizer_of_a_step_with_several_count():
    class Two(Manual):
        def configure_optimizers(self) -> Any:
            rates = (1e-3, 1e-2)
            return [torch.optim.SGD(self.parameters(), lr=rate) for rate in rates]

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            for optimizer in self.optimizers():
                self.descend(self.residuals(batch), batch_idx, optimizer)

    monitor = NTKMonitor()
    fit(make(Two), monitor, steps=20)
    assert monitor.facts.progress.steps == 10
    assert monitor.facts.progress.scheduled == pytest.approx(10 * 1e-3)
    assert monitor.facts.progress.travelled == pytest.approx(10 * 1e-3, rel=1e-9)


@pytest.mark.parametrize("raw", [False, True])
def test_manual_optimisation_has_a_verdict(raw: bool):
    monitor = NTKMonitor(every_n_steps=2)
    fit(make(Manual, raw=raw, taps=raw), monitor, steps=5)
    assert steps_of(monitor, "ntk/verdict") == [0, 2, 4]
    assert monitor.facts.progress.steps == 5
    assert monitor.facts.progress.travelled == pytest.approx(5e-3, rel=1e-9)


def test_a_rule_that_fails_and_a_diagnosis_that_fails(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("pinn_ntk.diagnostics.verdict.diagnose", fails)
    monitor = NTKMonitor(every_n_steps=2)
    (warning,) = warned_in(monitor, steps=5)
    assert re.search("the verdict failed with RuntimeError: no such luck", warning)
    assert monitor.verdicts == []
    assert steps_of(monitor, "ntk/trace/pde") == [0, 2, 4]


TWO_RANKS = """
import torch
from tests.pinn import Pinn, fit
from pinn_ntk.callbacks import NTKMonitor

if __name__ == "__main__":
    torch.manual_seed(1)
    module, monitor = Pinn(), NTKMonitor(every_n_steps=2)
    run = fit(module, monitor, steps=5, devices=2, strategy="ddp")
    number = float(run.callback_metrics["ntk/verdict"])
    steps = monitor.facts.progress.steps
    print(f"RESULT {run.global_rank} {len(monitor.verdicts)} {number} {steps}", flush=True)
"""


@pytest.mark.slow
def test_of_two_ranks_the_first_one_judges(tmp_path: Path):
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    done = python(script)
    results = sorted(re.findall(r"RESULT (\d \d \S+ \d)", done.stdout))
    number = results[0].split()[2]
    assert results == [f"0 3 {number} 5", f"1 0 {number} 0"]
    assert (done.stdout + done.stderr).count("Verdict at step 4") == 1
