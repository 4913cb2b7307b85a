"""Options, markers and fixtures shared by all tests: seeds, dtypes and devices come from here."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from types import SimpleNamespace

# Trainings are compared bit by bit; otherwise MKL chooses its code by how memory is aligned.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores, so one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.idioms import Problem

LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning")
GUARD = "pinn_ntk.callbacks.trainer.guard"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--runslow"):
        _skip(items, "slow", "slow; runs with --runslow")
    if not torch.cuda.is_available():
        _skip(items, "gpu", "no CUDA device")


def pytest_collection_finish() -> None:
    """What is there before the first test stays: no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if marker in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def seed() -> int:
    """The seed every test starts from; for generators of a test's own."""
    return 0


@pytest.fixture(autouse=True)
def _fresh_torch(seed: int) -> Iterator[None]:
    """Seed torch, undo what a test does to its settings; Lightning's loggers speak as before."""
    levels = [logging.getLogger(name).level for name in LOGGERS]
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(seed)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    assert levels == [logging.getLogger(name).level for name in LOGGERS]


@pytest.fixture(autouse=True)
def unheard() -> Iterator[list[logging.LogRecord]]:
    """Warnings of callbacks that no test expects are logged, since they must not end a fit."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger(GUARD)
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Each dtype a model may have; the default dtype stays as it is."""
    return request.param


@pytest.fixture
def float64() -> torch.dtype:
    """Make float64 the default dtype for one test."""
    torch.set_default_dtype(torch.float64)
    return torch.float64


@pytest.fixture(params=["fast", "accurate"])
def method(request: pytest.FixtureRequest) -> str:
    """Each way to a spectrum."""
    return request.param


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time of the callbacks stands still but for what a test adds to ``now``, in seconds."""
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("pinn_ntk.callbacks.trainer.guard.time", fake)
    return clock


@pytest.fixture
def problem() -> Problem:
    """A small network and residuals of it, for losses."""
    return Problem()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device of this machine."""
    return torch.device(request.param)
