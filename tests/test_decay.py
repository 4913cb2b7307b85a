"""Laws of decay, found again in eigenvalues that follow them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pinn_ntk import Decay, Spectrum

INDEX = torch.arange(1, 31, dtype=torch.float64)
LAWS = [("power law", rate, scale) for rate in (0.5, 2.0, 6.0) for scale in (1e-12, 1.0, 1e9)]
LAWS += [("exponential", rate, 5.0) for rate in (0.1, 1.0, 3.0)]


def following(law: str, rate: float) -> torch.Tensor:
    return INDEX**-rate if law == "power law" else torch.exp(-rate * INDEX)


@pytest.mark.parametrize(("law", "rate", "scale"), LAWS)
def test_a_law_is_found_again(law: str, rate: float, scale: float):
    decay = Decay.of(scale * following(law, rate))
    assert decay.law == law
    assert decay.rate == pytest.approx(rate, rel=1e-12)
    assert decay.r_squared == pytest.approx(1.0, abs=1e-12)
    assert math.exp(decay.better.intercept) == pytest.approx(scale, rel=1e-10)
    assert (decay.exponential if law == "power law" else decay.power).r_squared < 0.95


@pytest.mark.parametrize(("law", "rate"), [("power law", 1.5), ("exponential", 0.3)])
def test_fit_is_that_of_least_squares(law: str, rate: float):
    values = following(law, rate) * torch.exp(0.05 * torch.sin(7 * INDEX))
    decay = Decay.of(values)
    assert decay.law == law
    x = np.log(INDEX.numpy()) if law == "power law" else INDEX.numpy()
    y = np.log(values.numpy())
    slope, intercept = np.polyfit(x, y, 1)
    assert decay.rate == pytest.approx(-slope, rel=1e-10)
    assert decay.better.intercept == pytest.approx(intercept, rel=1e-9)
    assert decay.r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-10)
    fitted = decay.better(INDEX).log()
    assert torch.allclose(fitted, torch.as_tensor(slope * x + intercept), rtol=1e-9)


def test_equal_eigenvalues_do_not_decay():
    decay = Decay.of(torch.full((6,), 3.0, dtype=torch.float64))
    assert (decay.law, decay.rate, decay.r_squared) == ("power law", 0.0, 1.0)
    assert decay.better(torch.tensor([1, 4])).tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_to_tell(count: int):
    assert Decay.of(torch.ones(count)) is None
    assert Spectrum.of(torch.eye(max(count, 1)).double()).decay is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_what_has_no_logarithm_is_refused(bad: float):
    with pytest.raises(ValueError, match="expected positive finite eigenvalues"):
        Decay.of(torch.tensor([3.0, 2.0, bad]))


def test_noise_below_the_floor_is_left_out():
    values = torch.exp(-2.0 * INDEX)
    values[15:] = 1e-18
    decay = Spectrum.of(torch.diag(values)).decay
    assert decay.law == "exponential"
    assert decay.rate == pytest.approx(2.0, rel=1e-6)


def test_float32_on_the_way_in():
    assert Decay.of((INDEX**-2).float()).rate == pytest.approx(2.0, rel=1e-5)
