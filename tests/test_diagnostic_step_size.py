"""The largest stable step, and the learning rate in use."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from pinn_ntk import NTK, curvature, find_terms, look
from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.kernel.rows import thinned
from pinn_ntk.kernel.spectrum import DIRECT, largest_eigenvalue
from pinn_ntk.looks.parameters import learning_rate
from tests.kernels import gaussian
from tests.looks import ask, linear, look_at, rows, said, says, values
from tests.pinn import fit
from tests.zoo import Inverse, Noted, TwoNetworks, make, train


def test_gradient_descent_is_stable_just_below_the_step_size_and_not_above():
    matrices, weights = {"pde": rows(6), "bc": rows(3, seed=1)}, {"pde": 1.0, "bc": 20.0}
    kernel, theta = linear(**matrices)
    loss = sum(weights[n] * (A @ theta).square().mean() for n, A in matrices.items())
    limit = max_stable_lr(kernel, kernel, curvature(find_terms(loss, names=["pde", "bc"])))
    step = look(loss, {"theta": theta}.items(), names=["pde", "bc"])
    assert values(ask(step, "step_size"))["max_stable_lr"] == pytest.approx(limit, rel=1e-12)

    def after(lr: float) -> float:
        x = torch.ones(4, dtype=torch.float64)
        for _ in range(3000):
            gradient = sum(2 * weights[n] / len(A) * A.mT @ (A @ x) for n, A in matrices.items())
            x = x - lr * gradient
        return float(x.norm())

    assert after(0.99 * limit) < 2.0
    assert after(1.01 * limit) > 1e6


def test_no_step_size_where_a_term_has_no_curvature():
    matrices, half = {"pde": rows(3), "bc": rows(2)}, {"pde": torch.ones(3)}
    assert "step_size" not in ask(look_at(matrices, known={"curvature": half})).readings
    both = look_at(matrices, known={"curvature": half | {"bc": torch.ones(2)}})
    top = torch.linalg.eigvalsh(both.kernel.matrix())[-1]
    found = values(ask(both, "step_size"))
    assert found == {"max_stable_lr": pytest.approx(2 / float(top), rel=1e-12)}


def test_zero_kernel_bounds_no_step_size():
    kernel, _ = linear(pde=torch.zeros(2, 4, dtype=torch.float64))
    assert max_stable_lr(kernel, kernel, {"pde": torch.ones(2)}) == math.inf


def test_rows_kept_stand_for_those_left_out():
    A = rows(3).repeat_interleave(2, dim=0)  # every row twice: thinning by two loses nothing
    kernel, _ = linear(pde=A)
    D = {"pde": torch.full((6,), 0.5, dtype=torch.float64)}
    exact = max_stable_lr(kernel, kernel, D)
    assert max_stable_lr(thinned(kernel, 3), kernel, D) == pytest.approx(exact, rel=1e-12)


def step(**facts: Any) -> dict[str, Any]:
    return {"step_size": {"bound": 0.004, **facts}}


UNSTABLE = "Step size: by the kernel, plain gradient descent is unstable above 0.004"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (step(lr=0.001), f"{UNSTABLE}; the learning rate in use, 0.001, is 0.25 times that.\n"),
        (step(lr=0.004), "the learning rate in use, 0.004, is just that."),
        (step(lr=0.01, groups=True), f"{UNSTABLE}, the largest learning rate of its groups, their"),
        (step(lr=0.01, groups=True), "those in use, up to 0.01, are 2.5 times that."),
        (step(lr=0.01, zero=["bc"]), f"{UNSTABLE} (without bc, whose residual is exactly zero); "),
        (step(lr=None), "NOT Step size"),  # the step that was taken was of another rule
        (step(lr=0.001, bound=math.inf), "NOT Step size"),
        (step(lr=0.001, bound=0.0), "NOT Step size"),
        ({"step_size": None, "learning_rate": {"lr": 0.1}}, "NOT Step size"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


ADAM, LBFGS = torch.optim.Adam, torch.optim.LBFGS


@pytest.mark.parametrize(
    ("optimizer", "options", "speaks"),
    [
        ("sgd", {}, True),
        ("sgd", {"gradient_clip_val": 1e3}, True),
        ("sgd", {"gradient_clip_val": 1e-4}, False),
        ("sgd", {"accumulate_grad_batches": 2}, False),
        (lambda net: torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9), {}, False),
        (lambda net: torch.optim.SGD(net.parameters(), 1e-3, weight_decay=9.0), {}, False),
        (lambda net: ADAM(net.parameters(), 1e-3), {}, False),
        (lambda net: LBFGS(net.parameters(), 1e-2), {}, False),
    ],
)
def test_in_a_training_it_speaks_of_plain_descent_alone(
    optimizer: Any, options: dict[str, Any], speaks: bool
):
    monitor = NTKMonitor(every_n_steps=1)
    fit(make(Noted, optimizer=optimizer), monitor, steps=3, **options)
    assert ("Step size" in monitor.panel.summary()) is speaks
    assert len(monitor.history["ntk/max_stable_lr"]) == 3  # the number is logged in any case


def test_a_balancer_s_weights_are_part_of_the_step():
    monitor = NTKMonitor(every_n_steps=1)
    fit(make(Noted), monitor, NTKBalancer(every_n_steps=1), steps=3)
    assert "Step size" in monitor.panel.summary()


def test_the_learning_rate_is_the_largest_of_the_groups_and_of_the_optimizer_that_steps():
    module, monitor = make(Inverse, optimizer="adam"), NTKMonitor(every_n_steps=1)
    train(module, monitor, steps=2)
    assert monitor.history["ntk/lr"].tolist() == [[0, 0.1], [1, 0.1]]


def halved(module: Any) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    return [optimizer], [{"scheduler": halving, "interval": "step"}]


def test_the_learning_rate_follows_its_schedule():
    monitor = NTKMonitor(every_n_steps=1)
    train(make(Noted, optimizer=halved), monitor, steps=4)
    expected = [[step, 0.01 / 2**step] for step in range(4)]
    np.testing.assert_allclose(monitor.history["ntk/lr"], expected, rtol=1e-14)


def test_no_learning_rate_where_it_is_not_clear_whose():
    module = make(TwoNetworks, manual=True)
    rates = ((module.net, 0.1), (module.source, 0.2))
    both = [torch.optim.SGD(net.parameters(), lr=lr) for net, lr in rates]
    params = dict(module.named_parameters())
    source = {n: p for n, p in params.items() if "source" in n}
    nothing = NTK({})
    assert learning_rate(both, params, nothing) is None
    assert learning_rate(both, source, nothing) == 0.2
    del both[1].param_groups[0]["lr"]
    assert learning_rate(both, source, nothing) is None


@pytest.mark.parametrize("size", [DIRECT - 1, DIRECT + 1, 3 * DIRECT])
@pytest.mark.parametrize("decay", [1.0, 0.1, 1e-4], ids=["steep", "slow", "flat"])
def test_largest_eigenvalue_is_that_of_the_direct_method(size: int, decay: float):
    values = torch.exp(-decay * torch.arange(size, dtype=torch.float64))
    basis = torch.linalg.qr(gaussian(size, size, seed=size)).Q
    matrix = 1e6 * basis @ torch.diag(values) @ basis.mT
    top = largest_eigenvalue(matrix)
    assert top == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-10)
    assert top == pytest.approx(1e6, rel=1e-10)
    assert largest_eigenvalue(matrix) == top


@pytest.mark.parametrize("scale", [1e-290, 1e-30, 1e30, 1e290])
def test_largest_eigenvalue_at_any_scale(scale: float):
    vector = torch.linspace(1, 2, 2 * DIRECT, dtype=torch.float64)
    top = largest_eigenvalue(scale * torch.outer(vector, vector))
    assert top == pytest.approx(scale * float(vector.square().sum()), rel=1e-12)


@pytest.mark.parametrize("size", [2, 2 * DIRECT])
def test_largest_eigenvalue_of_odd_matrices(size: int):
    assert largest_eigenvalue(torch.zeros(size, size)) == 0.0
    assert largest_eigenvalue(torch.eye(size)) == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(ValueError, match="NaN or inf"):
        largest_eigenvalue(torch.full((size, size), math.nan))


def test_largest_eigenvalue_where_lanczos_does_not_converge(monkeypatch: pytest.MonkeyPatch):
    error = scipy.sparse.linalg.ArpackNoConvergence("no", [], [])
    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", Mock(side_effect=error))
    matrix = torch.diag(torch.linspace(1, 7, 2 * DIRECT, dtype=torch.float64))
    assert largest_eigenvalue(matrix) == pytest.approx(7.0, rel=1e-14)


# --- Groups with learning rates of their own, and residuals that nothing moves

MATRICES = {"pde": rows(6), "bc": rows(3, seed=1)}


def split() -> tuple[list[torch.Tensor], Any]:
    """theta in two tensors, and the loss as a function of them."""
    parts = [torch.ones(2, dtype=torch.float64).requires_grad_() for _ in range(2)]
    return parts, lambda: sum((A @ torch.cat(parts)).square().mean() for A in MATRICES.values())


def read_split(rates: tuple[float, float], steps: int = 0) -> tuple[Any, float]:
    """What is read of a step under SGD with two groups, and the size of theta after some steps."""
    (a, b), loss = split()
    sgd = torch.optim.SGD(
        [{"params": [a], "lr": rates[0]}, {"params": [b], "lr": rates[1]}], lr=1.0
    )
    params = {"a": a, "b": b}
    panel = ask(look(loss(), params.items(), names=list(MATRICES), optimizer=sgd))
    for _ in range(steps):
        sgd.zero_grad()
        loss().backward()
        sgd.step()
    return panel, float(torch.cat([a, b]).detach().norm())


@pytest.mark.parametrize("ratio", [1.0, 0.1, 1e-7, 0.0])
def test_groups_are_stable_just_below_the_step_size_in_their_ratio_and_not_above(ratio: float):
    panel, _ = read_split((1.0, ratio))
    limit = values(panel)["max_stable_lr"]
    assert values(panel)["lr"] == 1.0
    assert read_split((0.99 * limit, 0.99 * limit * ratio), 3000)[1] < 2.1
    assert read_split((1.01 * limit, 1.01 * limit * ratio), 3000)[1] > 1e6
    swapped, _ = read_split((ratio, 1.0))
    assert (values(swapped)["max_stable_lr"] == pytest.approx(limit)) == (ratio == 1)


def test_a_group_that_no_residual_depends_on_does_not_matter():
    (a, b), loss = split()
    weight = torch.zeros(1, dtype=torch.float64).requires_grad_()
    alone = look(loss(), {"a": a, "b": b}.items(), names=list(MATRICES))
    groups = [{"params": [a, b], "lr": 1e-3}, {"params": [weight], "lr": 0.1}]
    params = {"a": a, "b": b, "s": weight}.items()
    step = look(
        loss() * torch.exp(-weight[0]),
        params,
        names=list(MATRICES),
        optimizer=torch.optim.SGD(groups),
    )
    found, expected = values(ask(step)), values(ask(alone, "step_size"))["max_stable_lr"]
    assert found["lr"] / found["max_stable_lr"] == pytest.approx(1e-3 / expected, rel=1e-12)


@pytest.mark.parametrize("target", ["itself", "shifted"])
def test_a_residual_that_is_exactly_zero_bounds_no_step(target: str):
    """r = u - u.detach() has a kernel and moves nothing: descent is stable as without it."""
    theta = torch.ones(4, dtype=torch.float64).requires_grad_()

    def terms() -> dict[str, torch.Tensor]:
        u = 3 * (MATRICES["bc"] @ theta)
        still = u - u.detach() if target == "itself" else (u + 1) - (u + 1).detach()
        return {"pde": MATRICES["pde"] @ theta, "still": still}

    def panel_of(residuals: dict[str, torch.Tensor]) -> Any:
        loss = sum(r.square().mean() for r in residuals.values())
        return ask(look(loss, {"theta": theta}.items(), names=list(residuals)))

    both, alone = panel_of(terms()), panel_of({"pde": terms()["pde"]})
    limit = values(both)["max_stable_lr"]
    assert limit == pytest.approx(values(alone)["max_stable_lr"], rel=1e-12)
    assert both.readings["step_size"].facts["zero"] == ["still"]
    for _ in range(3000):
        (gradient,) = torch.autograd.grad(sum(r.square().mean() for r in terms().values()), theta)
        theta = (theta - 0.99 * limit * gradient).detach().requires_grad_()
    assert float(theta.detach().norm()) < 2.1
    assert "step_size" not in panel_of({"still": 0 * terms()["still"]}).readings
