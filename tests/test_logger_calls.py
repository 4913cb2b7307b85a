"""What loggers take besides scalars: spectra, texts and figures, told by the calls that they have.

The stand-ins have the calls of Lightning's ``WandbLogger`` and ``MLFlowLogger``; what the real ones
write is read back by ``tests/libraries/run.py loggers``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.util import tensor_util

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.trainer.loggers import log_text, takes_figures
from pinn_ntk.errors import NTKWarning
from tests.pinn import Pinn, build, fit, ours, same, told_once
from tests.written import events, summaries

TERMS, STEPS = ("bc", "pde"), [0, 2, 3]
FIGURES = {"ntk/figure/history", "ntk/figure/interference"}


class Bare(Logger):
    """A logger that takes metrics, and raises ``error`` in calls on keys that hold ``failing``."""

    name, version = "bare", "0"

    def __init__(self, failing: str | None = None, error: Exception | None = None) -> None:
        super().__init__()
        self.failing, self.error = failing, error or OSError("disk")
        self.metrics: list[tuple[int | None, set[str]]] = []

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((step, set(metrics)))

    def check(self, key: str) -> None:
        if self.failing is not None and self.failing in key:
            raise self.error


class Tables(Bare):
    """The calls of a ``WandbLogger``, with their arguments."""

    def __init__(self, *failing: Any) -> None:
        super().__init__(*failing)
        self.tables: dict[str, list[tuple[list[str], list[list[Any]], int | None]]] = {}
        self.images: dict[str, tuple[list[Any], list[str]]] = {}

    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        self.check(key)
        assert columns is not None
        assert data is not None
        self.tables.setdefault(key, []).append((columns, data, step))

    def log_text(self, key: str, *given: Any, **named: Any) -> None:
        self.log_table(key, *given, **named)

    def log_image(
        self, key: str, images: list[Any], step: int | None = None, *, caption: list[str]
    ) -> None:
        self.check(key)
        assert caption == [f"step {step}"]
        self.images[key] = images, caption


class Client:
    """Those calls of an ``MlflowClient`` that make files."""

    def __init__(self, check: Any) -> None:
        self.check = check
        self.files: dict[str, Any] = {}

    def log_dict(self, run_id: str, dictionary: dict[str, Any], artifact_file: str) -> None:
        self.check(artifact_file)
        assert run_id == "7"
        assert artifact_file not in self.files
        self.files[artifact_file] = dictionary

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.log_dict(run_id, cast("Any", text), artifact_file)

    def log_figure(self, run_id: str, figure: Figure, artifact_file: str) -> None:
        self.log_dict(run_id, cast("Any", figure), artifact_file)


class Files(Bare):
    """What a ``MLFlowLogger`` has: a client and the name of a run."""

    run_id = "7"

    def __init__(self, *failing: Any) -> None:
        super().__init__(*failing)
        self.experiment = Client(self.check)

    @property
    def files(self) -> dict[str, Any]:
        return self.experiment.files


def train(*loggers: Logger, **options: Any) -> NTKMonitor:
    """Three measurements."""
    monitor = NTKMonitor(every_n_steps=2, **options)
    fit(build(), monitor, steps=4, logger=list(loggers))
    return monitor


def eigenvalues(monitor: NTKMonitor) -> dict[str, dict[int, list[float]]]:
    """Term -> step -> numbers that have to arrive."""
    found = {
        term: {step: spectrum.eigenvalues.tolist() for step, spectrum in series}
        for term, series in monitor.spectra.items()
    }
    assert sorted(found) == list(TERMS)
    assert all(list(series) == STEPS for series in found.values())
    return found


def test_spectra_come_as_tables():
    logger = Tables()
    for term, series in eigenvalues(train(logger)).items():
        written = logger.tables[f"ntk/spectrum/{term}"]
        rows = [[[step, i, value] for i, value in enumerate(v)] for step, v in series.items()]
        assert written == [(["step", "index", "eigenvalue"], data, data[0][0]) for data in rows]
        assert {type(value) for row in rows[0] for value in row} == {int, float}


def test_spectra_come_as_files():
    logger = Files()
    for term, series in eigenvalues(train(logger)).items():
        for step, values in series.items():
            written = logger.files[f"ntk/spectrum/{term}/{step}.json"]
            assert written == {"step": step, "eigenvalues": values}


def test_texts_come_to_each_and_never_under_the_key_of_a_number(tmp_path: Path):
    table, files, board = Tables(), Files(), TensorBoardLogger(tmp_path)
    train(table, files, board)
    expected = summaries(events(board.log_dir))
    assert list(expected) == [0, 3]
    ((columns, ((step, first),), _), (_, ((last_step, last),), _)) = table.tables[
        "ntk/summary/text"
    ]
    assert columns == ["step", "text"]
    assert {step: first, last_step: last} == expected
    assert {s: files.files[f"ntk/summary/{s}.md"] for s in (0, 3)} == expected
    assert [row[0] for _, (row,), _ in table.tables["ntk/verdict/text"]][-1] == 3
    assert "ntk/verdict/3.md" in files.files
    numbers = set().union(*(tags for _, tags in table.metrics))
    assert "ntk/verdict" in numbers
    assert not numbers & (table.tables.keys() | table.images.keys())


@pytest.mark.parametrize("kind", [Tables, Files])
def test_figures_are_drawn_without_tensorboard_and_without_pyplot(
    kind: type[Tables | Files], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    logger = kind()
    train(logger)
    if isinstance(logger, Tables):
        assert logger.images.keys() == FIGURES
        for (image,), caption in logger.images.values():
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
            assert image.min() < 50 < 200 < image.max()
            assert caption == ["step 3"]
    else:
        drawn = {name: f for name, f in logger.files.items() if name.endswith(".png")}
        assert drawn.keys() == {f"{tag}/3.png" for tag in FIGURES}
        assert all(isinstance(figure, Figure) for figure in drawn.values())


def test_the_prefix_leads_all_keys():
    table, files = Tables(), Files()
    train(table, files, prefix="kernel/coarse")
    keys = [*table.tables, *table.images, *files.files]
    assert all(key.startswith("kernel/coarse/") for key in keys)


def test_loggers_without_calls_get_scalars_alone_and_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("matplotlib.figure.Figure.__init__", None)
    bare = Bare()
    train(bare, CSVLogger(tmp_path))
    assert [step for step, tags in bare.metrics if "ntk/trace/pde" in tags] == STEPS
    (folder,) = tmp_path.rglob("metrics.csv")
    assert [path.name for path in folder.parent.iterdir()] == ["metrics.csv"]


class AnswersAll:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class StandIn(AnswersAll):
    """As Lightning puts it in the place of loggers, and of what they write with on other ranks."""

    experiment = AnswersAll()


def test_stand_ins_for_loggers_take_nothing():
    dummy = fit(build(), fast_dev_run=True, logger=[Tables(), Files()]).loggers
    assert [type(logger).__name__ for logger in dummy] == ["DummyLogger"] * len(dummy)
    for logger in [*dummy, StandIn()]:
        assert not takes_figures(cast("pl.Trainer", SimpleNamespace(loggers=[logger])))


# --- Failures


def test_a_logger_that_fails_keeps_nothing_from_the_others(tmp_path: Path):
    error = RuntimeError("no such luck")
    loggers = Tables("", error), Files(), TensorBoardLogger(tmp_path), Tables()
    with pytest.warns(NTKWarning) as warned:
        monitor = train(*loggers)
    said = [
        f"pinn_ntk: logging {what} to Tables failed with RuntimeError: no such luck. Training goes "
        f"on; logging {what} to Tables is tried again when next due. Its traceback is logged at "
        "level DEBUG by pinn_ntk."
        for what in ("spectra", "texts", "figures")
    ]
    assert ours(warned) == said
    broken, files, board, whole = loggers
    assert (broken.tables, broken.images) == ({}, {})
    assert whole.images.keys() == set(events(board.log_dir).Tags()["images"]) == FIGURES
    assert {name for name in files.files if name.endswith(".png")}
    log = events(board.log_dir)
    for term, series in eigenvalues(monitor).items():
        assert [step for *_, step in _rows(whole, term)] == STEPS
        written = log.Tensors(f"ntk/spectrum/{term}")
        assert [event.step for event in written] == STEPS
        for event in written:
            got = tensor_util.make_ndarray(event.tensor_proto)
            np.testing.assert_array_equal(got, np.float32(series[event.step]))
    assert len(log.Tensors("ntk/summary/text_summary")) == 2


def _rows(logger: Tables, term: str) -> list[tuple[Any, int]]:
    return [(columns, data[0][0]) for columns, data, _ in logger.tables[f"ntk/spectrum/{term}"]]


def test_what_fails_is_tried_again_and_leaves_the_rest_of_its_logger():
    """One term has a name that cannot be written; in words that are others each time."""

    class VaryingError(Exception):
        def __str__(self) -> str:
            self.times = getattr(self, "times", 0) + 1
            return "no way" + "!" * self.times

    table = Tables("spectrum/pde", VaryingError())
    with told_once("logging spectra to Tables failed with VaryingError: no way!. Training goes on"):
        train(table)
    assert [step for *_, step in _rows(table, "bc")] == STEPS
    assert "ntk/spectrum/pde" not in table.tables
    assert table.error.times == 3  # type: ignore[attr-defined]
    assert table.images.keys() == FIGURES
    assert len(table.tables["ntk/summary/text"]) == 2


class Closing(Bare):
    """Its experiment cannot be opened any more once training has begun, or ever."""

    closed = False

    @property
    def experiment(self) -> Any:
        if self.closed:
            raise ConnectionError("no route to host")
        return None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.closed = True


def test_a_logger_that_cannot_be_opened_is_named_and_the_next_fit_says_so_again():
    table, monitor = Tables(), NTKMonitor(every_n_steps=2)
    for _ in range(2):
        with told_once("pinn_ntk: opening Closing failed with ConnectionError: no route to host"):
            fit(build(), monitor, NTKBalancer(), steps=4, logger=[Closing(), table])
    assert len(_rows(table, "pde")) == 2 * len(STEPS)


@pytest.mark.filterwarnings("ignore::pinn_ntk.errors.NTKWarning")
def test_training_is_the_same_whatever_loggers_do():
    def trained(*loggers: Logger) -> Pinn:
        net = build()
        fit(net, NTKMonitor(every_n_steps=2), steps=4, logger=list(loggers))
        return net

    plain = trained()
    assert same(plain, trained(Tables(), Files()))
    assert same(plain, trained(Tables(""), Files(""), Closing()))


@pytest.mark.filterwarnings("error::pinn_ntk.errors.NTKWarning")
def test_training_goes_on_where_warnings_are_errors(unheard: list[logging.LogRecord]):
    broken, whole = Files(""), Tables()
    train(broken, Closing(), whole)
    assert broken.files == {}
    assert whole.images.keys() == FIGURES
    said = [record.getMessage().partition(" failed with ")[0] for record in unheard]
    assert sorted(said) == [
        "pinn_ntk: logging figures to Files",
        "pinn_ntk: logging spectra to Files",
        "pinn_ntk: logging texts to Files",
        "pinn_ntk: opening Closing",
    ]
    unheard.clear()


def test_without_callbacks_of_ours_it_is_a_plain_warning():
    trainer = cast("pl.Trainer", SimpleNamespace(loggers=[Files("")]))
    with told_once("pinn_ntk: logging texts to Files failed with OSError: disk. Training goes on"):
        log_text(trainer, "ntk/summary", "# Kernel", 5)
