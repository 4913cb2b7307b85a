"""What is kept of every step: losses in bins, and how far the optimizer went."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from pinn_ntk.looks.loss_bins import BINS, LossBins
from pinn_ntk.looks.plain import is_plain
from pinn_ntk.looks.progress import HELD, Progress

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.03),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
}


def trained(progress: Progress, steps: int, run: Any = None, kind: str = "sgd") -> Any:
    """Descend on a quadratic; the state that it ends in goes on."""
    if run is None:
        w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        run = w, OPTIMIZERS[kind]([w])
    w, optimizer = run
    for _ in range(steps):
        loss = (w**2 * torch.tensor([1.0, 3.0])).sum()
        optimizer.zero_grad()
        loss.backward()
        with progress.step(optimizer, loss):
            optimizer.step()
    return run


def test_plain_descent_travels_as_far_as_is_scheduled():
    progress = Progress()
    trained(progress, 100)
    assert progress.travelled == pytest.approx(3.0)
    assert progress.scheduled == pytest.approx(3.0)
    assert progress.lr_eff == pytest.approx(0.03)
    assert progress.steps == 100


def test_what_clipping_leaves_of_a_step_is_seen():
    progress, w = Progress(), nn.Parameter(torch.tensor([100.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(5):
        loss = w.square().sum()
        optimizer.zero_grad()
        loss.backward()
        with progress.step(optimizer, loss):
            nn.utils.clip_grad_norm_([w], 1e-3)
            optimizer.step()
    assert progress.scheduled == pytest.approx(0.5)
    assert progress.travelled == pytest.approx(5 * 0.1 * 1e-3 / 200, rel=1e-3)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("cut", [1, 17, 50, HELD, 3 * BINS + 1])
def test_one_that_goes_on_from_a_state_gives_the_same_numbers(kind: str, cut: int):
    whole, first, second = Progress(), Progress(), Progress()
    trained(whole, cut + 300, kind=kind)
    run = trained(first, cut, kind=kind)
    state = first.state_dict()
    assert is_plain(state)
    second.load_state_dict(copy.deepcopy(state))
    trained(second, 300, run)
    assert second.state_dict() == whole.state_dict()


def test_looking_between_steps_changes_nothing():
    looked, other = Progress(), Progress()
    run, theirs = trained(looked, 0), trained(other, 0)
    for _ in range(90):
        trained(looked, 1, run)
        assert looked.travelled >= 0
        trained(other, 1, theirs)
    assert looked.state_dict() == other.state_dict()


def test_steps_that_are_not_looked_at_go_as_far_as_the_one_before():
    progress, w = Progress(), nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([w], lr=0.01)
    for step in range(64):
        optimizer.param_groups[0]["lr"] = 0.01 if step < 40 else 0.02
        w.grad = torch.ones(1)
        with progress.step(optimizer, None):
            optimizer.step()
    # looked at: 1 to 16, 32, 48 (with the new rate) and 64
    assert progress.travelled == pytest.approx(47 * 0.01 + 17 * 0.02, rel=1e-4)
    assert math.isnan(progress.first)


def test_the_longest_step_is_that_over_the_parameters_and_first_ones_count_a_tenth():
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    progress, optimizer = Progress(), torch.optim.SGD([w], lr=1.0)
    seen = []
    for step in range(1, 13):
        length = {2: 15.0, 10: 2.5}.get(step, 0.1)
        w.data, w.grad = torch.tensor([3.0, 4.0]).double(), torch.tensor([length, 0.0]).double()
        with progress.step(optimizer, w.sum()):
            optimizer.step()
        seen.append(progress.leap)
    assert seen[5] == pytest.approx(0.3)
    assert seen[-1] == pytest.approx(0.5)


def test_steps_up_the_gradient_and_without_one_are_no_way():
    progress, w = Progress(), nn.Parameter(torch.tensor([1.0]))
    for grad, moved in ((1.0, 1.0), (0.0, 1.0), (math.nan, 1.0), (1.0, -0.25)):
        progress.loss(torch.tensor(1.0))
        w.grad = torch.tensor([grad])
        progress.step_begins([w], None)
        w.data += moved
        progress.step_ends()
    assert progress.travelled == pytest.approx(0.25)
    assert progress.scheduled == 0.0


def test_losses_that_are_not_finite_are_left_out_and_remembered():
    progress = Progress()
    for loss in (1.0, math.nan, 0.1, math.inf):
        progress.loss(torch.tensor(loss))
    assert progress.not_finite == 1
    assert (progress.steps, progress.first, progress.last) == (4, 0.0, pytest.approx(-1.0))
    progress = Progress()
    progress.loss(torch.tensor(1.0))
    assert progress.not_finite is None


def test_the_scale_of_the_loss_is_taken_off():
    progress = Progress()
    progress.loss(torch.tensor(4096.0), scale=4096.0)
    assert progress.first == 0.0


def test_losses_on_several_dtypes_keep_their_order():
    progress = Progress()
    for k in range(5):
        progress.loss(torch.tensor(10.0**-k, dtype=(torch.float32, torch.float64)[k % 2]))
    assert progress.last == pytest.approx(-4)
    assert progress.rising(1.0) == 0.0


@pytest.mark.parametrize("steps", [7, 199, 200, 201, 1000, 5003])
def test_bins_hold_all_steps_and_see_the_slope(steps: int):
    losses = LossBins()
    for step in range(steps):
        losses.add(10 ** (-4 * step / steps))
    assert sum(n for n, *_ in losses.bins) == steps
    assert len(losses.bins) <= BINS
    assert losses.fallen(0.5) == pytest.approx(2.0, rel=0.25 if steps < 10 else 0.03)
    assert losses.rising(1.0) == 0.0
    assert losses.jitter(1.0) == pytest.approx(4 / steps, rel=0.1)


def test_jitter_and_rises_are_told_from_descent():
    losses = LossBins()
    for step in range(1000):
        losses.add(10 ** (0.2 * (step % 2)))
    assert losses.jitter(0.2) == pytest.approx(0.2)
    assert losses.rising(0.2) == pytest.approx(0.5, abs=0.01)
    assert abs(losses.fallen(0.5)) < 0.02
