"""Spectra, and the certificate: what is logged of them and said."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pinn_ntk.diagnostics import Panel
from pinn_ntk.diagnostics.registry import chosen
from tests.looks import ask, facts_of, look_at, rows, said, says, spectrum, values

SPECTRA = {"pde": spectrum(100.0, 10.0, 1e-14), "bc": spectrum(2.0, 1.0)}


def test_values_of_a_spectrum():
    look = look_at({"pde": rows(3), "bc": rows(2)}, known={"spectra": SPECTRA})
    assert values(ask(look, "spectrum")) == {
        "lambda_max/pde": 100.0,
        "lambda_max/bc": 2.0,
        "effective_rank/pde": pytest.approx(110**2 / 10_100),
        "effective_rank/bc": pytest.approx(9 / 5),
        "log10_condition/pde": pytest.approx(1.0),  # 1e-14 is below the floor
        "log10_condition/bc": pytest.approx(math.log10(2)),
    }


def test_the_condition_of_a_zero_kernel_is_left_out():
    look = look_at({"pde": 0 * rows(2)}, known={"spectra": {"pde": spectrum(0.0, 0.0, floor=0.0)}})
    assert set(values(ask(look, "spectrum"))) == {"lambda_max/pde", "effective_rank/pde"}


def test_all_eigenvalues_are_written_with_what_describes_them():
    reading = ask(look_at({"pde": rows(10)}, max_points=5)).readings["spectrum"]
    A = rows(10)[::2]
    exact = torch.linalg.eigvalsh(A @ A.mT).flip(0)
    torch.testing.assert_close(reading.tensors["spectrum/pde"], exact, atol=1e-13, rtol=1e-10)
    described = dict(reading.facts["spectrum/pde"])
    floor = reading.facts["terms"]["pde"]["floor"]
    assert described.pop("rel_floor") == pytest.approx(floor / float(exact[0]))
    assert described == {"block": "pde", "n_points": 5, "n_params": 4, "dtype": "float64"}


def test_spectra_of_all_steps_go_into_the_figure_and_on_from_a_state():
    panel = ask(look_at({"pde": rows(3)}, 0, total_step=7), "spectrum")
    other = Panel(chosen(["spectrum"]))
    other.load_state_dict(panel.state_dict())
    other.read(look_at({"pde": rows(3)}, 1, total_step=9, points="a fixed probe"))
    spectra = other.diagnostics["spectrum"]
    assert [step for step, _ in spectra.spectra["pde"]] == [7, 9]
    name, figure = spectra.figure()
    assert (name, figure.get_suptitle()) == ("history", "Spectra on a fixed probe")
    assert len(figure.axes[0].lines) == 3  # two spectra and a floor
    other.reset()
    assert spectra.figure() is None


@pytest.mark.parametrize(("certify", "most"), [(True, 1e-10), (False, None)])
def test_the_certificate_is_the_worst_of_the_terms(certify: bool, most: float | None):
    look = look_at({"pde": rows(3), "bc": rows(2)}, certify=certify)
    panel = ask(look, "certificate")
    worst = max(look.kernel.certificate.values(), default=None)
    assert values(panel) == ({} if most is None else {"certificate": worst})
    assert most is None or worst <= most
    assert panel.readings["certificate"].facts == {"worst": worst}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            (
                "Rank: eigenvalues above the rounding noise: pde 2 of 3; condition is that of "
                "these alone.\n"
            ),
        ),
        ({"spectrum": {"terms": {"bc": facts_of(spectrum(2.0, 1.0))}}}, "NOT Rank"),
        ({"spectrum": {"terms": {"bc": facts_of(spectrum(0.0, 0.0))}}}, "noise: bc 0 of 2; cond"),
        ({}, "agrees with ordinary backward passes to 3e-08"),
        ({"certificate": {"worst": None}}, "was not checked against ordinary backward passes"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)
