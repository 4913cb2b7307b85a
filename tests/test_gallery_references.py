"""References of the gallery against second methods, and the problems that are held against them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.networks import Lambda
from tests.scripts import example, load

load("gallery.command_line")  # Lightning sets its loggers when it is imported
references = load("gallery.references")
NU = 0.01 / math.pi


def grid(times: int = 21, places: int = 51) -> tuple[np.ndarray, np.ndarray]:
    axes = np.meshgrid(np.linspace(0, 1, times), np.linspace(-1, 1, places))
    return axes[0].ravel(), axes[1].ravel()


def defect(u: Callable[..., np.ndarray], nu: float, f: Callable[[Any, Any], Any], h: float) -> Any:
    """u_t - nu u_xx + f(u, u_x) by central differences, away from the start and the ends."""
    axes = np.meshgrid(np.linspace(0.2, 0.9, 8), np.linspace(-0.9, 0.9, 37))
    t, x = (axis.ravel() for axis in axes)
    u_t = (u(t + h, x) - u(t - h, x)) / (2 * h)
    u_x = (u(t, x + h) - u(t, x - h)) / (2 * h)
    u_xx = (u(t, x + h) - 2 * u(t, x) + u(t, x - h)) / h**2
    return np.abs(u_t - nu * u_xx + f(u(t, x), u_x))


def test_references_have_converged_as_their_docstrings_say():
    found = references.convergence()
    limits = {"Burgers, 120": 1e-14, "Burgers, quad": 1e-10, "Allen-Cahn": 4e-5}
    for what, limit in limits.items():
        (distance,) = (d for name, d in found.items() if name.startswith(what))
        assert 0 < distance < limit


@pytest.mark.parametrize("nu", [NU, 0.03, 0.1])
def test_burgers_fulfils_equation_start_and_ends(nu: float):
    t, x = grid()
    u = references.burgers(t, x, nu)
    assert np.abs(u[t == 0] + np.sin(np.pi * x[t == 0])).max() < 1e-12
    assert np.abs(u[np.abs(x) == 1]).max() < 1e-12
    assert np.abs(u).max() <= 1
    np.testing.assert_allclose(u[x < 0], -references.burgers(t[x < 0], -x[x < 0], nu), atol=1e-12)
    solution = partial(references.burgers, nu=nu)
    by_differences = defect(solution, nu, lambda u, u_x: u * u_x, 1e-4)
    assert np.median(by_differences) < 1e-5
    assert by_differences.max() < 0.02 * (0.01 / nu) ** 2 + 1e-3  # coarse in the layer


def test_a_slow_wave_of_burgers_is_the_heat_equation():
    """A large viscosity: the nonlinear term is small beside it."""
    t, x = grid()
    u = references.burgers(t, x, 1.0)
    late = t > 0.3
    heat = -np.sin(np.pi * x) * np.exp(-(np.pi**2) * t)
    ratio = u[late] @ heat[late] / (heat[late] @ heat[late])
    assert np.abs(u[late] - ratio * heat[late]).max() < 0.03 * np.abs(u[late]).max()
    assert ratio == pytest.approx(1, rel=0.05)


def test_allen_cahn_fulfils_equation_and_start():
    t, x = grid()
    solution = references.allen_cahn()
    u = solution(t, x)
    start = t == 0
    assert np.abs(u[start] - x[start] ** 2 * np.cos(np.pi * x[start])).max() < 1e-3  # a kink
    np.testing.assert_allclose(solution(t, x), solution(t, -x), atol=1e-6)
    np.testing.assert_allclose(solution(t, 0 * t - 1), solution(t, 0 * t + 1), atol=1e-12)
    assert np.median(defect(solution, 1e-4, lambda u, _: 5 * u**3 - 5 * u, 1e-3)) < 1e-4


def test_etdrk4_is_of_fourth_order():
    """v' = -v + v^2 from 1/2, whose solution is 1 / (1 + e^t)."""
    errors = []
    for steps in (10, 20, 40):
        _, v = references.etdrk4(np.array([-1.0]), lambda v: v**2, np.array([0.5 + 0j]), steps)
        errors.append(abs(v[-1, 0] - 1 / (1 + math.e)))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.2)


# --- Problems


@pytest.mark.usefixtures("float64")
def test_kovasznay_flow_fulfils_all_terms():
    script = example("kovasznay")
    model, data = script.Kovasznay(width=2, depth=1), script.Points(n_test=9)
    model.net = Lambda(model.exact)
    residuals = model.residuals(data.draw(1))
    assert set(residuals) == {"loss_b", "loss_p", "loss_x", "loss_y", "loss_mass"}
    for term, residual in residuals.items():
        assert float(residual.detach().abs().max()) < 1e-12, term
    assert float(model.error(data.test)) == 0.0
    model.net = Lambda(lambda points: model.exact(points) * torch.tensor([1.0, 1.0, 2.0]))
    assert float(model.residuals(data.draw(1))["loss_mass"].detach().abs().max()) < 1e-12
    assert all(
        float(model.residuals(data.draw(1))[term].detach().abs().max()) > 0.1
        for term in ("loss_p", "loss_x")
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["burgers", "allen_cahn"])
def test_residual_is_that_of_the_equation(name: str):
    """On u = sin(x) e^t, whose derivatives are known."""
    script = example(name)
    model = getattr(script, {"burgers": "Burgers", "allen_cahn": "AllenCahn"}[name])(width=2)
    points = script.Points().draw(1)["r"]
    model.net = Lambda(lambda p: torch.sin(p[:, 1:]) * torch.exp(p[:, :1]))
    u, u_x = model.net(points), torch.cos(points[:, 1:]) * torch.exp(points[:, :1])
    by_hand = {"burgers": u + u * u_x + NU * u, "allen_cahn": u + 1e-4 * u + 5 * u**3 - 5 * u}
    torch.testing.assert_close(model.residual(points).detach(), by_hand[name])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "kind"), [("burgers", "Burgers"), ("allen_cahn", "AllenCahn")])
def test_reference_fulfils_start_and_ends(name: str, kind: str):
    script = example(name)
    model, batch = getattr(script, kind)(width=2), script.Points().draw(1)
    start = model.residuals(batch)["loss_u"] - model.net(batch["u"])  # minus the values at t = 0
    assert float((model.reference(batch["u"]) + start).detach().abs().max()) < 1e-3
    assert model.reference(batch["r"]).shape == (400, 1)


@pytest.mark.usefixtures("float64")
def test_jump_of_allen_cahn_is_zero_for_periodic_networks_and_no_others():
    script = example("allen_cahn")
    left = script.Points().draw(1)["left"]
    periodic, plain = script.AllenCahn(periodic=True, width=6), script.AllenCahn(width=6)
    assert "loss_b" not in periodic.residuals(script.Points().draw(1))
    assert float(periodic.jump(left).detach().abs().max()) < 1e-12
    assert plain.jump(left).shape == (60, 2)
    assert float(plain.jump(left).detach().abs().min()) > 1e-6


def test_inverse_burgers_finds_its_coefficient_where_the_data_are_right():
    script = example("inverse_burgers")
    data, model = script.Points(n_residual=50), script.InverseBurgers(nu=script.NU)
    assert "0.0% off" in model.found()["nu"]
    clean = script.solution(data.places)
    noise = (data.values - clean).std() / clean.std()
    assert float(noise) == pytest.approx(0.05, rel=0.15)
    first, second = data.draw(1), data.draw(2)
    assert torch.equal(first["places"], second["places"])
    assert not torch.equal(first["r"], second["r"])
    residuals = model.residuals(first)
    (slope,) = torch.autograd.grad(residuals["loss_r"].square().mean(), model.log_nu)
    assert float(slope.abs()) > 0
    rows = {name: len(r) for name, r in residuals.items()}
    assert rows == {"loss_data": 300, "loss_b": 60, "loss_r": 50}


@pytest.mark.parametrize("name", ["burgers", "allen_cahn", "kovasznay", "inverse_burgers"])
def test_points_lie_on_their_sides(name: str):
    script = example(name)
    batch = script.Points(n_boundary=8).draw(3)
    low, high = torch.tensor(script.BOX.low), torch.tensor(script.BOX.high)
    for part, points in batch.items():
        if part != "values":
            assert bool(((points >= low) & (points <= high)).all()), part
    if "u" in batch:
        assert float(batch["u"][:, 0].abs().max()) == 0
    sides: Tensor | None = batch.get("b")
    if sides is not None:
        assert bool(((sides == low) | (sides == high)).any(1).all())
        assert len(sides) == 8
