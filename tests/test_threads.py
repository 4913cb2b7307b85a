"""Two fits in two threads of one process, as sweeps run them: neither sees the other."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from pytorch_lightning.trainer.connectors import data_connector

from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.step.measuring import fit_begins, fit_is_over, is_measuring, measuring
from pinn_ntk.taps import listen, tap, unlisten
from tests.pinn import fit, same
from tests.zoo import Manual, Noted, make, series


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def loaders_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning changes the class DataLoader while it asks for loaders: one thread at a time."""
    lock, change = threading.RLock(), data_connector._replace_dunder_methods

    @contextmanager
    def locked(*args: Any) -> Iterator[None]:
        with lock, change(*args):
            yield

    monkeypatch.setattr(data_connector, "_replace_dunder_methods", locked)


FITS: list[Callable[[], Any]] = [
    lambda: make(Noted, optimizer="adam"),
    lambda: make(Manual, optimizer="adam", raw=True, taps=True),
    lambda: make(Manual, taps=True),
]


def run(module: Any) -> tuple[Any, NTKBalancer, NTKMonitor]:
    balancer, monitor = NTKBalancer(every_n_steps=1), NTKMonitor(every_n_steps=2)
    fit(module, balancer, monitor, steps=12)
    return module, balancer, monitor


# Filters of warnings are of the process: Lightning sets its own for a while in each thread.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("often", "loaders_in_turn")
def test_fits_in_threads_are_those_one_after_the_other():
    alone = [run(new()) for new in FITS]
    modules = [new() for new in FITS]
    with ThreadPoolExecutor(len(modules)) as pool:
        together = list(pool.map(run, modules))
    for (module, balancer, monitor), (other, others, measured) in zip(alone, together, strict=True):
        assert same(module, other)
        assert balancer.weights == others.weights
        assert series(monitor, "ntk/trace/pde") == series(measured, "ntk/trace/pde")


class Notes:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def tapped(self, name: str, _: Any) -> None:
        self.heard.append(name)


def in_a_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_taps_of_another_thread_are_not_heard():
    notes = Notes()
    listen(notes)
    tap(torch.zeros(1), "here")
    in_a_thread(lambda: tap(torch.zeros(1), "there"))
    unlisten(notes)
    assert notes.heard == ["here"]


def test_a_fit_that_is_measured_is_so_in_every_thread_and_no_other_is():
    module, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with measuring(module), measuring(module):
        assert in_a_thread(lambda: is_measuring(module))
        assert not is_measuring(other)
    assert not is_measuring(module)


@pytest.mark.parametrize("both_train", [False, True])
def test_numbers_that_another_fit_draws_meanwhile_are_not_drawn_again(both_train: bool):
    module, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    begun, over = threading.Event(), threading.Event()

    def elsewhere() -> None:
        fit_begins(other)
        begun.set()
        over.wait()
        fit_is_over(other)

    thread = threading.Thread(target=elsewhere, daemon=True)
    fit_begins(module)
    if both_train:
        thread.start()
        begun.wait()
    before = torch.get_rng_state()
    with measuring(module):
        torch.rand(1)
    fit_is_over(module)
    over.set()
    assert torch.equal(before, torch.get_rng_state()) is not both_train
    if both_train:
        thread.join()
