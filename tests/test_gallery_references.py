"""References of the gallery against second methods, and the problems that are held against them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.networks import Lambda
from tests.scripts import example, load

load("gallery.command_line")  # Lightning sets its loggers when it is imported
references = load("gallery.references")
NU = 0.01 / math.pi
LIMITS = {
    "Burgers, 120 nodes from 240": 1e-14,
    "Burgers, quadrature from ETDRK4": 3e-10,
    "Allen-Cahn, 2048 modes from 4096": 7e-5,
    "Allen-Cahn, beside the kink, t = 0": 4e-4,
    "Allen-Cahn, relative L2": 2e-6,
}
"""What docstrings say of ``references.convergence()``."""


def grid(times: int = 21, places: int = 51) -> tuple[np.ndarray, np.ndarray]:
    axes = np.meshgrid(np.linspace(0, 1, times), np.linspace(-1, 1, places))
    return axes[0].ravel(), axes[1].ravel()


def cole_hopf(points: Tensor, nu: float) -> Tensor:
    """The solution of Burgers' equation, (N, 1), in torch: autograd sees through it."""
    z, weight = (torch.as_tensor(part) for part in np.polynomial.hermite.hermgauss(120))
    y = points[:, 1:] - (4 * nu * points[:, :1]).sqrt() * z
    f = torch.softmax(weight.log() - torch.cos(math.pi * y) / (2 * math.pi * nu), 1)
    return -(f * torch.sin(math.pi * y)).sum(1, keepdim=True)


@pytest.mark.slow
def test_references_have_converged_as_their_docstrings_say():
    found = references.convergence()
    assert found.keys() == LIMITS.keys()
    assert all(0 < found[what] < limit for what, limit in LIMITS.items())


@pytest.mark.parametrize("nu", [NU, 0.03, 0.1])
def test_burgers_fulfils_start_and_ends(nu: float):
    t, x = grid()
    u = references.burgers(t, x, nu)
    assert np.abs(u[t == 0] + np.sin(np.pi * x[t == 0])).max() < 1e-12
    assert np.abs(u[np.abs(x) == 1]).max() < 1e-12
    assert np.abs(u).max() <= 1
    np.testing.assert_allclose(u[x < 0], -references.burgers(t[x < 0], -x[x < 0], nu), atol=1e-12)
    again = cole_hopf(torch.tensor(np.stack([t, x], 1)), nu)[:, 0].numpy()
    np.testing.assert_allclose(u, again, atol=1e-12)


def test_layer_of_burgers_is_as_steep_as_published():
    """Basdevant et al. 1986: |u_x| at x = 0 is at most 152.00516, at pi t = 1.6037."""
    t, h = np.linspace(0.50, 0.52, 201), np.full(201, 1e-6)
    slope = -references.burgers(t, h, NU) / h
    assert slope.max() == pytest.approx(152.00516, abs=1e-4)
    assert math.pi * t[slope.argmax()] == pytest.approx(1.6037, abs=2e-4)


def test_a_slow_wave_of_burgers_is_the_heat_equation():
    """A large viscosity: the nonlinear term is small beside it."""
    t, x = grid()
    u = references.burgers(t, x, 1.0)
    late = t > 0.3
    heat = -np.sin(np.pi * x) * np.exp(-(np.pi**2) * t)
    ratio = u[late] @ heat[late] / (heat[late] @ heat[late])
    assert np.abs(u[late] - ratio * heat[late]).max() < 0.03 * np.abs(u[late]).max()
    assert ratio == pytest.approx(1, rel=0.05)


def test_allen_cahn_fulfils_start_and_period():
    t, x = grid()
    solution = references.allen_cahn()
    u = solution(t, x)
    start = t == 0
    assert np.abs(u[start] - x[start] ** 2 * np.cos(np.pi * x[start])).max() < 1e-3  # a kink
    np.testing.assert_allclose(solution(t, x), solution(t, -x), atol=1e-6)
    np.testing.assert_allclose(solution(t, 0 * t - 1), solution(t, 0 * t + 1), atol=1e-12)


def test_allen_cahn_fulfils_the_equation_by_spectral_derivatives():
    solution, times = references.allen_cahn(), np.linspace(0.1, 0.99, 30)
    series, k = solution.series(times), np.pi * solution.frequencies
    u, u_xx = (np.fft.ifft(part).real for part in (series, -(k**2) * series))
    u_t = np.fft.ifft(solution.series(times, 1)).real
    assert np.abs(u_t).max() > 0.5
    assert np.abs(u_t - 1e-4 * u_xx + 5 * u**3 - 5 * u).max() < 1e-6


def test_allen_cahn_agrees_with_a_second_method():
    """Central differences of second order and SciPy's DOP853, extrapolated in the step."""
    found = []
    for cells in (1024, 2048):
        x = -1 + 2 * np.arange(cells) / cells

        def slope(_: float, u: np.ndarray, h: float = 2 / cells) -> np.ndarray:
            u_xx = (np.roll(u, 1) - 2 * u + np.roll(u, -1)) / h**2
            return 1e-4 * u_xx + 5 * u - 5 * u**3

        done = solve_ivp(slope, (0, 1), x**2 * np.cos(np.pi * x), "DOP853", rtol=1e-9, atol=1e-11)
        found.append(done.y[:, -1][:: cells // 1024])
    x = -1 + 2 * np.arange(1024) / 1024
    extrapolated = (4 * found[1] - found[0]) / 3
    assert np.abs(extrapolated - references.allen_cahn()(0 * x + 1, x)).max() < 5e-6


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
@pytest.mark.parametrize("name", ["burgers", "inverse_burgers"])
def test_solution_of_burgers_fulfils_all_terms(name: str):
    """By autograd, on a second implementation of the reference; terms see a shift by 1."""
    script, inverse = example(name), name == "inverse_burgers"
    data = script.Points(noise=0.0) if inverse else script.Points()
    nu = script.NU if inverse else NU
    model = (script.InverseBurgers if inverse else script.Burgers)(nu=nu, width=2)
    model.net, batch = Lambda(partial(cole_hopf, nu=nu)), data.draw(1)
    torch.testing.assert_close(model.reference(batch["r"]), model.net(batch["r"]))
    for term, residual in model.residuals(batch).items():
        assert float(residual.detach().abs().max()) < 1e-8, term
    assert float(model.error(data.test)) < 1e-12
    model.net = Lambda(lambda points: cole_hopf(points, nu) + 1)
    shifted = {term: r.detach() for term, r in model.residuals(batch).items()}
    assert float(shifted.pop("loss_r").abs().max()) > 1
    assert all(torch.allclose(r, torch.ones_like(r)) for r in shifted.values())
    assert len(shifted) == 2


@pytest.mark.usefixtures("float64")
def test_reference_of_allen_cahn_is_what_the_start_asks_for():
    script = example("allen_cahn")
    model, batch = script.AllenCahn(width=2), script.Points().draw(1)
    start = model.residuals(batch)["loss_u"] - model.net(batch["u"])  # minus the values at t = 0
    assert float((model.reference(batch["u"]) + start).detach().abs().max()) < 1e-3
    assert model.reference(batch["r"]).shape == (400, 1)


@pytest.mark.usefixtures("float64")
def test_jump_of_allen_cahn_is_that_of_u_and_u_x():
    """On u = e^t (x + x^2): u(-1) - u(1) = -2 e^t, and of u_x = e^t (1 + 2 x), -4 e^t."""
    script = example("allen_cahn")
    model, left = script.AllenCahn(width=2), script.Points().draw(1)["left"]
    model.net = Lambda(lambda p: p[:, :1].exp() * (p[:, 1:] + p[:, 1:] ** 2))
    by_hand = left[:, :1].exp() * torch.tensor([-2.0, -4.0])
    torch.testing.assert_close(model.jump(left).detach(), by_hand)


@pytest.mark.usefixtures("float64")
def test_jump_of_allen_cahn_is_zero_for_periodic_networks_and_no_others():
    script = example("allen_cahn")
    left = script.Points().draw(1)["left"]
    periodic, plain = script.AllenCahn(periodic=True, width=6), script.AllenCahn(width=6)
    assert "loss_b" not in periodic.residuals(script.Points().draw(1))
    assert float(periodic.jump(left).detach().abs().max()) < 1e-12
    assert plain.jump(left).shape == (60, 2)
    assert float(plain.jump(left).detach().abs().min()) > 1e-6


@pytest.mark.usefixtures("float64")
def test_residual_of_inverse_burgers_leads_to_the_true_coefficient():
    """On the solution itself the slope of the residual term vanishes at the true viscosity."""
    script = example("inverse_burgers")
    batch, slopes = script.Points().draw(1), {}
    for nu in (0.02, script.NU, 0.1):
        model = script.InverseBurgers(nu=nu, width=2)
        model.net = Lambda(partial(cole_hopf, nu=script.NU))
        loss = model.residuals(batch)["loss_r"].square().mean()
        (slope,) = torch.autograd.grad(loss, model.log_nu)
        slopes[nu] = float(slope)
    assert slopes[0.02] < -1e-3
    assert abs(slopes[script.NU]) < 1e-8
    assert slopes[0.1] > 1e-3


def test_inverse_burgers_says_how_far_its_coefficient_is_off():
    script = example("inverse_burgers")
    assert "0.0% off" in script.InverseBurgers(nu=script.NU).found()["nu"]
    assert "10.0% off" in script.InverseBurgers(nu=1.1 * script.NU).found()["nu"]


def test_data_of_inverse_burgers_stay_and_have_the_noise_that_is_asked_for():
    data = example("inverse_burgers").Points()
    clean = example("inverse_burgers").solution(data.places)
    assert float((data.values - clean).std() / clean.std()) == pytest.approx(0.05, rel=0.15)
    first, second = data.draw(1), data.draw(2)
    assert torch.equal(first["places"], second["places"])
    assert torch.equal(first["values"], second["values"])
    assert not torch.equal(first["r"], second["r"])


KINDS = {
    "burgers": "Burgers",
    "allen_cahn": "AllenCahn",
    "kovasznay": "Kovasznay",
    "inverse_burgers": "InverseBurgers",
}
ROWS: dict[str, dict[str, tuple[int, int]]] = {
    "burgers": {"loss_r": (400, 1), "loss_u": (60, 1), "loss_b": (60, 1)},
    "allen_cahn": {"loss_r": (400, 1), "loss_u": (60, 1), "loss_b": (60, 2)},
    "kovasznay": {
        **dict.fromkeys(("loss_x", "loss_y", "loss_mass"), (400, 1)),
        "loss_b": (100, 2),
        "loss_p": (25, 1),
    },
    "inverse_burgers": {"loss_r": (400, 1), "loss_data": (300, 1), "loss_b": (60, 1)},
}
"""Rows and columns of each term with the numbers of points that a script has by default."""


@pytest.mark.parametrize("name", list(KINDS))
def test_terms_have_the_points_that_they_are_given(name: str):
    script = example(name)
    model = getattr(script, KINDS[name])(width=3)
    for n_boundary in (None, 8):  # fewer boundary points leave the other terms alone
        counts = {} if n_boundary is None else {"n_boundary": n_boundary}
        rows = {t: r.shape for t, r in model.residuals(script.Points(**counts).draw(1)).items()}
        columns = ROWS[name]["loss_b"][1]
        expected = {"loss_b": (n_boundary, columns)} if n_boundary else {}
        assert rows == ROWS[name] | expected


SIDES: dict[str, dict[str, list[tuple[int, float]]]] = {
    "burgers": {"u": [(0, 0.0)], "b": [(1, -1.0), (1, 1.0)]},
    "allen_cahn": {"u": [(0, 0.0)], "left": [(1, -1.0)]},
    "kovasznay": {"b": [(0, -0.5), (0, 1.0), (1, -0.5), (1, 1.5)], "p": [(0, 1.0)]},
    "inverse_burgers": {"b": [(1, -1.0), (1, 1.0)]},
}
"""Which part of a batch lies on which sides, (input, value), as many points on each."""


@pytest.mark.parametrize("name", list(SIDES))
def test_points_lie_on_their_sides(name: str):
    script = example(name)
    batch = script.Points(n_boundary=80).draw(3)
    low, high = torch.tensor(script.BOX.low), torch.tensor(script.BOX.high)
    for part in batch.keys() - {"values"}:
        assert bool(((batch[part] >= low) & (batch[part] <= high)).all()), part
    for part, sides in SIDES[name].items():
        points = batch[part]
        counts = [int((points[:, axis] == value).sum()) for axis, value in sides]
        assert counts == [len(points) / len(sides)] * len(sides), part
