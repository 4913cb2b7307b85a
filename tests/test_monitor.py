"""NTKMonitor in a real Trainer: every logged value against one computed by hand at that step."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from torch import Tensor

from pinn_ntk import NTK
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.step.recorder import Recorder
from pinn_ntk.diagnostics.certificate import Certificate
from pinn_ntk.diagnostics.step_size import StepSize
from pinn_ntk.looks.parameters import learning_rate, trained_parameters
from tests.by_hand import D, Seen
from tests.pinn import N_PDE, ONE_BATCH, Pinn, TwoOptimizers, build, calling, fit, same, told_once
from tests.written import column, events, summaries
from tests.zoo import CutOff, Noted, assert_traces, compare, make, steps_of

TERMS = ("pde", "bc")
SCALARS = {
    *(f"ntk/{what}/{t}" for t in TERMS for what in ("trace", "lambda_max", "effective_rank")),
    *(f"ntk/{what}/{t}" for t in TERMS for what in ("log10_condition", "drift")),
    *("ntk/drift/kernel", "ntk/drift/parameters", "ntk/max_stable_lr"),
    *("ntk/certificate", "ntk/overhead_fraction", "ntk/verdict"),
    *(f"ntk/effective_weight/{t}" for t in TERMS),
    *("ntk/lr", "ntk/interference/pde/bc", "ntk/predicted_decrease_ratio"),
}
VERDICT = "ntk/verdict"
KERNEL_DRIFT = {"ntk/drift/pde", "ntk/drift/bc", "ntk/drift/kernel"}
"""From the second measurement on: at the first it is not known whether the points stay."""

JUDGED = "ntk/predicted_decrease_ratio"
"""Known when the next step has come."""


def known_at(tag: str, measured: list[int]) -> list[int]:
    """Of the steps measured, the last of which ends the fit, those at which a tag is known."""
    return measured[tag in KERNEL_DRIFT : len(measured) - (tag == JUDGED)]


class ByHand(Seen):
    """Computes from what it noted row by row what the monitor has to log at a step."""

    def expected(self, step: int) -> dict[str, float]:
        (r, J), (_, J_0) = self.stacked(step), self.stacked(0)
        K, K_0 = J @ J.T, J_0 @ J_0.T
        whole = np.linalg.eigvalsh(np.sqrt(D)[:, None] * K * np.sqrt(D))
        values = {
            "ntk/drift/kernel": change(K, K_0),
            "ntk/drift/parameters": self.moved(step),
            "ntk/max_stable_lr": 2 / whole[-1],
            "ntk/lr": 0.01,
        }
        pde, bc = slice(N_PDE), slice(N_PDE, None)
        for term, rows in (("pde", pde), ("bc", bc)):
            block = K[rows, rows]
            eigenvalues = np.linalg.eigvalsh(block)
            floor = len(block) * np.finfo(float).eps * eigenvalues[-1]
            kept = eigenvalues[eigenvalues > floor]
            values[f"ntk/trace/{term}"] = (J[rows] ** 2).sum()
            values[f"ntk/lambda_max/{term}"] = eigenvalues[-1]
            values[f"ntk/effective_rank/{term}"] = kept.sum() ** 2 / (kept**2).sum()
            values[f"ntk/log10_condition/{term}"] = np.log10(kept[-1] / kept[0])
            values[f"ntk/drift/{term}"] = change(block, K_0[rows, rows])
            values[f"ntk/effective_weight/{term}"] = 1.0
        a, b = ((D[rows] * r[rows]) @ J[rows] for rows in (pde, bc))  # gradients of the terms
        values["ntk/interference/pde/bc"] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        if step + 1 in self.rows:
            values[JUDGED] = self.ratio(step)
        return {tag: value for tag, value in values.items() if step or tag not in KERNEL_DRIFT}


def change(now: NDArray[Any], start: NDArray[Any]) -> float:
    return float(np.linalg.norm(now - start) / np.linalg.norm(start))


# --- What is measured, and when


def test_every_value_is_that_of_the_step_it_is_logged_at():
    module, monitor = make(ByHand, optimizer="adam"), NTKMonitor(every_n_steps=3)
    fit(module, monitor, steps=8)
    assert set(monitor.history) == SCALARS
    for step in (0, 3, 6, 7):
        expected = module.expected(step)
        got = {t: dict(h)[step] for t, h in monitor.history.items() if step in dict(h)}
        assert {*expected, "ntk/certificate", "ntk/overhead_fraction"} == set(got) - {VERDICT}
        assert got[VERDICT] == dict(monitor.verdicts)[step].cause
        for tag, value in expected.items():
            # The smallest eigenvalue above the noise has few digits, its logarithm a few more.
            tolerance = 1e-6 if "condition" in tag else 1e-9 if tag == JUDGED else 1e-10
            assert got[tag] == pytest.approx(value, rel=tolerance, abs=1e-14), (tag, step)
        assert 0 <= got["ntk/certificate"] < 1e-12
        assert 0 < got["ntk/overhead_fraction"] < 1


@pytest.mark.parametrize(
    ("every", "options", "expected"),
    [
        (3, {"steps": 8}, [0, 3, 6, 7]),
        (3, {"steps": 7}, [0, 3, 6]),
        (100, {"steps": 1}, [0]),
        (2, {"steps": -1, "max_epochs": 2, "limit_train_batches": 2}, [0, 2, 3]),
        (2, {"steps": 4, "accumulate_grad_batches": 2}, [0, 2, 3]),
    ],
)
def test_steps_measured(every: int, options: dict[str, Any], expected: list[int]):
    monitor = NTKMonitor(every_n_steps=every)
    fit(build(), monitor, **options)
    for tag in SCALARS:
        accumulated = tag == JUDGED and "accumulate_grad_batches" in options
        assert steps_of(monitor, tag) == ([] if accumulated else known_at(tag, expected)), tag


def test_accumulation_does_not_change_what_is_measured():
    alone, accumulated = NTKMonitor(), NTKMonitor()
    fit(build(), alone, steps=1)
    fit(build(), accumulated, steps=1, accumulate_grad_batches=2)
    for tag in (
        SCALARS - KERNEL_DRIFT - {"ntk/overhead_fraction", "ntk/certificate", JUDGED, VERDICT}
    ):
        (_, value), (_, expected) = accumulated.history[tag][0], alone.history[tag][0]
        assert value == pytest.approx(expected, rel=1e-12), tag


def test_two_optimizers_make_one_step_and_one_set_of_parameters():
    module, monitor = TwoOptimizers(), NTKMonitor(every_n_steps=2)
    run = fit(module, monitor, steps=10)
    assert steps_of(monitor) == [0, 2, 4]
    names = list(trained_parameters(run.optimizers, module))
    assert names == [
        *(f"net.{n}" for n, _ in module.net.named_parameters()),
        "optimizer_0.param_6",
        "scale",
    ]


def test_rows_above_max_points_are_thinned_for_blocks_only():
    module, monitor = make(ByHand), NTKMonitor(max_points=4)
    fit(module, monitor, steps=1)
    _, jacobian = module.stacked(0)
    J = jacobian[[0, 2, 4]]  # ceil(6 / 4) = 2; the 4 rows of bc are all kept
    eigenvalues = np.linalg.eigvalsh(J @ J.T)[::-1]
    ((_, spectrum),) = monitor.spectra["pde"]
    np.testing.assert_allclose(
        spectrum.eigenvalues.numpy(), eigenvalues, atol=1e-12 * eigenvalues[0]
    )
    assert monitor.history["ntk/lambda_max/pde"][0][1] == pytest.approx(eigenvalues[0], rel=1e-12)
    for tag in ("ntk/trace/pde", "ntk/trace/bc", "ntk/lambda_max/bc"):
        assert monitor.history[tag][0][1] == pytest.approx(module.expected(0)[tag], rel=1e-12)
    whole = np.concatenate([J, jacobian[N_PDE:]])
    weights = np.concatenate([2 * D[:3], D[N_PDE:]])  # each row of pde stands for two
    scaled = np.sqrt(weights)[:, None] * whole
    top = np.linalg.eigvalsh(scaled @ scaled.T)[-1]
    assert monitor.history["ntk/max_stable_lr"][0][1] == pytest.approx(2 / top, rel=1e-12)


class Alternating(Pinn):
    """The boundary term vanishes on odd batches, and is an L1 loss otherwise."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        losses = {"pde": residuals["pde"].square().mean()}
        if batch_idx % 2 == 0:
            losses["bc"] = residuals["bc"].abs().mean()
        self.log_losses(losses, batch_idx)
        return torch.stack(list(losses.values())).sum()


def test_absent_term_leaves_a_gap_and_other_losses_have_no_step_size():
    monitor = NTKMonitor(every_n_steps=1)
    fit(Alternating(), monitor, steps=4)
    assert steps_of(monitor, "ntk/trace/pde") == [0, 1, 2, 3]
    assert steps_of(monitor, "ntk/trace/bc") == [0, 2]
    assert steps_of(monitor, "ntk/drift/pde") == [1, 2, 3]
    assert steps_of(monitor, "ntk/drift/bc") == [2]
    assert steps_of(monitor, "ntk/drift/kernel") == [2]  # the whole of other terms is another
    assert steps_of(monitor, "ntk/max_stable_lr") == [1, 3]


# --- Training stays as it is


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_is_bit_identical(tmp_path: Path, optimizer: str, dropout: float):
    finals, states = [], []
    for callbacks in ([], [NTKMonitor(every_n_steps=7, max_points=4)]):
        module = build(optimizer=optimizer, dropout=dropout)
        fit(module, *callbacks, steps=50, logger=TensorBoardLogger(tmp_path))
        finals.append(module)
        states.append((torch.get_rng_state(), np.random.get_state()[1]))  # noqa: NPY002
    assert same(*finals)
    assert torch.equal(states[0][0], states[1][0])
    assert np.array_equal(states[0][1], states[1][1])
    assert not same(finals[0], build(optimizer=optimizer, dropout=dropout))


def test_gradients_and_graph_are_left_alone():
    def check(_: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        assert all(p.grad is None for p in module.parameters())
        assert loss.grad_fn is not None

    monitor = NTKMonitor(every_n_steps=1)
    fit(build(), monitor, calling(on_before_backward=check), steps=2)
    assert steps_of(monitor) == [0, 1]


def test_failing_diagnostic_warns_once_and_training_goes_on(monkeypatch: pytest.MonkeyPatch):
    broken = Mock(side_effect=RuntimeError("no such luck."))
    monkeypatch.setattr("pinn_ntk.looks.look.kernel_within", broken)
    monitor = NTKMonitor(every_n_steps=1)
    left_out = "left out for this fit without it: the spectra, the traces, "
    with told_once(f"the kernel failed with RuntimeError: no such luck. Tr.*{left_out}"):
        compare(Pinn, monitor, fit={"steps": 6})
    assert all(set(call.args[0]) == {"pde", "bc"} for call in broken.call_args_list)
    assert broken.call_count == 6  # the verdict asks at each measurement, and does without
    kept = {"ntk/effective_weight/pde", "ntk/effective_weight/bc", "ntk/overhead_fraction"}
    assert set(monitor.history) == {*kept, VERDICT}


COSINE, STABLE = "ntk/interference/pde/bc", "ntk/max_stable_lr"
FORECAST, BETWEEN = "the predicted decrease", "the interference"
LR, LIMIT = "the learning rate", "the largest stable learning rate"
BOTH = f"{BETWEEN}, {FORECAST}"
INPUTS, TERMS_OF_STEP = "callbacks.step.step_inputs.StepInputs", "looks.step_terms.StepTerms"
PARTS: dict[str, tuple[str, str, set[str]]] = {
    f"{TERMS_OF_STEP}.losses": ("the loss of each term", BOTH, {COSINE, JUDGED}),
    f"{TERMS_OF_STEP}.curvature": ("the curvature of the loss", LIMIT, {STABLE}),
    "looks.look.learning_rate": (LR, "", {"ntk/lr"}),
    "graph.terms.term_loss.TermLoss.slope": ("the slopes of the loss", BOTH, {COSINE, JUDGED}),
    "diagnostics.interference.interference_of": (BETWEEN, "", {COSINE}),
    "diagnostics.step_size.max_stable_lr": (LIMIT, "", {STABLE}),
    "diagnostics.rank.definiteness": ("the definiteness", "", set()),
    f"{INPUTS}.drew_numbers": ("the random states", FORECAST, {JUDGED}),
    f"{INPUTS}.setting": ("the setting of the step", FORECAST, {JUDGED}),
    "diagnostics.predicted_decrease.digest": (FORECAST, "", {JUDGED}),
}
"""What fails -> the name that it is reported under, who shares it, the tags that are lost."""


def no_luck(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no such luck")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_fails_leaves_all_the_others(part: str, monkeypatch: pytest.MonkeyPatch):
    what, without, lost = PARTS[part]
    monkeypatch.setattr(f"pinn_ntk.{part}", no_luck)
    monitor = NTKMonitor(every_n_steps=1)
    left_out, off = "left out for this fit without it: ", " is switched off for this fit"
    after = left_out + without if without else what + off
    failed = f"NTKMonitor: {what} failed with RuntimeError: no such luck. Training goes on; "
    with told_once(
        rf"^{re.escape(failed + after)}\. Its traceback is logged at level DEBUG by pinn_ntk\.$"
    ):
        compare(Pinn, monitor, fit={"steps": 3})
    assert set(monitor.history) == SCALARS - lost
    assert len(monitor.history["ntk/trace/pde"]) == 3


SPEAKERS = [StepSize, Certificate]


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
def test_a_sentence_that_fails_leaves_the_rest_of_the_summary(
    speaker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def told() -> list[str]:
        logger = TensorBoardLogger(tmp_path)
        fit(build(), NTKMonitor(every_n_steps=2), steps=5, logger=logger)
        return summaries(events(logger.log_dir))[4].splitlines()

    whole = told()
    monkeypatch.setattr(speaker, "sentences", no_luck)
    with told_once("the sentence on"):
        rest = told()
    assert set(rest) < set(whole)
    assert 1 <= len(whole) - len(rest) <= 2
    assert len(rest) >= 8


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([None, None], None),
        ([None, 0.1], 0.1),
        ([torch.tensor(0.25), 0.1], 0.25),
        ([torch.ones(2), 0.1], 0.1),
        (["fast", 1], 1.0),
    ],
)
def test_only_learning_rates_that_are_numbers_are_taken(rates: list[Any], expected: float | None):
    module = build()
    optimizer = torch.optim.SGD([{"params": [p]} for p in list(module.parameters())[:2]], lr=1.0)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    params = trained_parameters([optimizer], module)
    assert learning_rate([optimizer], params, NTK({})) == expected


# --- Names


@pytest.mark.parametrize("log", ["tensor", "item", "dict", "keyword", "sparse"])
def test_terms_are_named_after_logged_keys(log: str):
    module, monitor = make(Noted, log=log), NTKMonitor(every_n_steps=4)
    fit(module, monitor, steps=6)
    assert set(monitor.history) == SCALARS
    assert set(monitor.spectra) == set(TERMS)
    assert_traces(monitor, module, [0, 4, 5])


def test_terms_that_are_not_logged_are_numbered():
    monitor = NTKMonitor()
    fit(build(log="none"), monitor, steps=1)
    assert set(monitor.spectra) == {"term_0", "term_1"}


class OwnLog(Pinn):
    """Overrides ``log`` and calls it with everything that Lightning allows."""

    calls: list[Any]

    def log(self, name: str, value: Any, **options: Any) -> None:  # type: ignore[override]
        self.calls.append((name, float(value.detach()), options))
        super().log(name, value, **options)


def test_log_behaves_as_without_the_monitor(tmp_path: Path):
    seen, tables = [], []
    for number, callbacks in enumerate(([], [NTKMonitor(every_n_steps=2)])):
        module, logger = make(OwnLog), CSVLogger(tmp_path, version=number)
        module.calls = []
        fit(module, *callbacks, steps=4, logger=logger, log_every_n_steps=1)
        seen.append(module.calls)
        tables.append([column(logger.log_dir, term) for term in TERMS])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 8
    assert tables[0] == tables[1]
    assert [len(values) for values in tables[0]] == [4, 4]


# --- Where it is logged


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[NTKMonitor, EventAccumulator]:
    logger = TensorBoardLogger(tmp_path_factory.mktemp("logs"))
    monitor = NTKMonitor(every_n_steps=3)
    with warnings.catch_warnings():
        # Lightning's own use of torch.utils._pytree, as in pyproject.toml.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec", category=FutureWarning)
        fit(build(), monitor, steps=8, logger=logger, log_every_n_steps=1)
    return monitor, events(logger.log_dir)


def test_scalars_are_in_the_event_file_at_lightnings_step(logged: Any):
    monitor, log = logged
    assert {tag for tag in log.Tags()["scalars"] if tag.startswith("ntk/")} == SCALARS
    for tag, series in monitor.history.items():
        written = [(event.step, event.value) for event in log.Scalars(tag)]
        assert written == [(step, np.float32(value)) for step, value in series]
        assert [step for step, _ in written] == known_at(tag, [0, 3, 6, 7])
    assert [event.step for event in log.Scalars("pde")] == list(range(8))


def test_spectra_are_tensor_summaries(logged: tuple[NTKMonitor, EventAccumulator]):
    monitor, log = logged
    assert set(log.PluginTagToContent("spectra")) == {"ntk/spectrum/pde", "ntk/spectrum/bc"}
    for term in TERMS:
        written = log.Tensors(f"ntk/spectrum/{term}")
        assert [event.step for event in written] == [0, 3, 6, 7]
        for event, (_, spectrum) in zip(written, monitor.spectra[term], strict=True):
            values = tensor_util.make_ndarray(event.tensor_proto)
            np.testing.assert_array_equal(values, spectrum.eigenvalues.float().numpy())


def test_summary_figure_and_layout_are_written(logged: tuple[NTKMonitor, EventAccumulator]):
    monitor, log = logged
    texts = summaries(log)
    assert list(texts) == [0, 7]
    trace = dict(monitor.history["ntk/trace/pde"])[7]
    assert f"| pde | 6 | {trace:.3g} |" in texts[7]
    for figure in ("history", "interference"):
        (image,) = log.Images(f"ntk/figure/{figure}")
        assert image.step == 7
        assert image.width > image.height > 100
    assert len(log.Tensors("custom_scalars__config__")) == 1


def test_exception_still_leaves_figure_and_summary_and_a_clean_module(tmp_path: Path):
    logger, monitor, module = TensorBoardLogger(tmp_path), NTKMonitor(every_n_steps=2), CutOff()
    module.error = ZeroDivisionError("in the user's code")
    with pytest.raises(ZeroDivisionError, match="in the user's code"):
        fit(module, monitor, logger=logger)
    assert "log" not in vars(module)
    log = events(logger.log_dir)
    assert [image.step for image in log.Images("ntk/figure/history")] == [2]
    assert list(summaries(log)) == [0, 2]


def test_one_measurement_is_told_once_and_drawn_without_pyplot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    logger = TensorBoardLogger(tmp_path)
    fit(build(), NTKMonitor(), steps=1, logger=logger)
    log = events(logger.log_dir)
    assert len(log.Tensors("ntk/summary/text_summary")) == 1
    assert len(log.Images("ntk/figure/history")) == 1
    assert log.Tags()["images"] == ["ntk/figure/history", "ntk/figure/interference"]


@pytest.mark.parametrize("diagnostics", [None, ["interference"]])
def test_no_figure_and_a_hint_without_matplotlib(
    diagnostics: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    logger = TensorBoardLogger(tmp_path)
    with caplog.at_level("INFO"):
        fit(build(), NTKMonitor(diagnostics=diagnostics), steps=2, logger=logger)
    assert caplog.text.count("no figures without matplotlib") == 1
    assert events(logger.log_dir).Tags()["images"] == []


# --- What is left behind, and what is carried on


def test_module_is_left_as_it_was_found():
    module, own = build(), Mock()
    vars(module)["log"] = own
    fit(module, NTKMonitor(), NTKBalancer(), steps=3)
    assert vars(module)["log"] is own
    assert own.call_count == 6


def test_recorders_may_leave_in_any_order():
    module = build()
    first, second = Recorder(), Recorder()
    first.attach(module)
    second.attach(module)
    first.begin()
    second.begin()
    first.detach()
    module.trainer = pl.Trainer(logger=False, barebones=True)
    with pytest.warns(UserWarning, match="barebones"):
        module.log("pde", 1.0)
    assert (first.logged, second.logged) == ({}, {"pde": 1.0})
    second.detach()
    assert "log" not in vars(module)


class Copies(Pinn):
    """Copies itself in the middle of a step, when live tensors have been logged."""

    copies: ClassVar[list[Pinn]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.copies += [copy.deepcopy(self), pickle.loads(pickle.dumps(self))]
        return loss


def test_module_may_be_copied_and_pickled_while_it_is_listened_to():
    module = Copies()
    Copies.copies.clear()
    fit(module, NTKMonitor(), steps=1)
    for clone in Copies.copies:
        assert clone.log.module is clone
        assert clone.log.recorders == []
        with pytest.warns(UserWarning, match="`self.trainer` reference is not registered"):
            clone.log("pde", 1.0)  # as without a Trainer


def test_another_module_starts_anew():
    monitor = NTKMonitor(every_n_steps=2)
    fit(build(), monitor, steps=3)
    fit(build(), monitor, steps=1)
    assert monitor.history["ntk/drift/parameters"].tolist() == [[0, 0.0]]


def test_drift_begins_anew_after_a_restart_without_its_start(tmp_path: Path):
    """See test_resume.py for restarts with it."""
    half, resumed = (NTKMonitor(every_n_steps=2, save_start=False) for _ in range(2))
    ckpt = tmp_path / "half.ckpt"
    fit(build(optimizer="adam"), half, steps=3, **ONE_BATCH).save_checkpoint(ckpt)
    fit(build(optimizer="adam"), resumed, steps=6, ckpt=ckpt, **ONE_BATCH)
    assert steps_of(resumed) == [0, 2, 4, 5]  # the first step of a resumed fit is not measured
    assert resumed.history["ntk/drift/parameters"][2].tolist() == [4, 0.0]
    assert steps_of(resumed, "ntk/drift/kernel") == [2, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, r"every_n_steps is 0; expected an integer of at least 1"),
        ({"every_n_steps": 2.5}, r"every_n_steps is 2\.5; expected an integer"),
        ({"every_n_steps": True}, r"every_n_steps is True; expected an integer"),
        ({"max_points": -1}, r"max_points is -1; expected an integer of at least 1"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        NTKMonitor(**options)
