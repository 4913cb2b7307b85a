"""One measured step: computed when asked for, once, and shared; also in a loop of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import NTK, Look, OpaqueLossError, interference, look
from pinn_ntk.errors import UnavailableError
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.looks import look as module
from pinn_ntk.looks.step_terms import StepTerms
from pinn_ntk.verdict.cause import Cause
from tests.kernels import mlp
from tests.looks import ask, look_at, rows, values

SHARED = {n for n, quantity in vars(Look).items() if hasattr(quantity, "compute")}
X = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]


class Inverse(nn.Module):
    """A network, a coefficient of the equation, and a weight of the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(1, 5, 1)
        self.c = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.lam = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def residuals(self) -> dict[str, Tensor]:
        return {"pde": self.c * self.net(X) - X.sin(), "bc": self.net(X[:2])}

    def loss(self, residuals: dict[str, Tensor] | None = None) -> Tensor:
        r = residuals or self.residuals()
        return self.lam * r["pde"].square().mean() + 10 * r["bc"].square().sum()


class Opaque(torch.autograd.Function):
    """What no walk from the loss sees through."""

    forward = staticmethod(lambda _, loss: 1 * loss)
    backward = staticmethod(lambda _, gradient: gradient)


def test_every_quantity_of_a_plain_loop_is_that_of_autograd():
    net = Inverse()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.25)
    r = net.residuals()
    step = look(
        net.loss(r), net, names=["pde", "bc"], weights={"bc": 2.0}, optimizer=optimizer, step=7
    )
    params = list(net.parameters())
    J = {name: reference_jacobian(residual, params) for name, residual in r.items()}
    assert (step.step, step.total_step, step.points) == (7, 7, "the training batch")
    assert step.traces == pytest.approx({n: float(j.square().sum()) for n, j in J.items()})
    torch.testing.assert_close(step.kernel["pde", "bc"], J["pde"] @ J["bc"].mT)
    assert step.weights == {"pde": 1.0, "bc": 2.0}
    assert step.effective_weights == pytest.approx({"pde": 3.0, "bc": 40.0})
    assert step.learning_rate == 0.25
    for name, factor in {"pde": 3 / 6, "bc": 20}.items():
        slope = 2 * factor * r[name].detach().flatten()
        torch.testing.assert_close(step.slopes[name], slope)
        torch.testing.assert_close(step.gradients[name], J[name].mT @ slope)
        torch.testing.assert_close(step.curvature[name], torch.full_like(slope, 2 * factor))
        value = factor * float(r[name].detach().square().sum())
        assert step.losses[name].value(r[name]) == pytest.approx(value)
    groups = {"c": "inverse", "lam": "loss_weights", "net.0.weight": "network"}
    assert groups.items() <= step.groups.items()
    assert step.shares["pde"]["c"] == pytest.approx(float(net.net(X).detach().square().sum()))
    assert step.n_params == sum(p.numel() for p in params)
    assert (step.setting, step.drew_numbers, step.again()) == (None, True, None)
    expected = interference(step.kernel, step.slopes).between("pde", "bc")
    assert values(ask(step))["interference/pde/bc"] == pytest.approx(expected)


def test_with_traces_alone_no_block_is_formed(monkeypatch: pytest.MonkeyPatch):
    formed: list[Any] = []
    monkeypatch.setattr(NTK, "__getitem__", lambda self, terms: formed.append(terms))
    step = look_at({"pde": rows(6), "bc": rows(2)})
    assert ask(step, "traces").readings["traces"].facts["traces"].keys() == {"pde", "bc"}
    assert formed == []
    assert {"kernel", "traces"} <= step.kept.keys()
    assert not {"spectra", "sampled", "losses", "gradients"} & step.kept.keys()


def test_a_look_that_nobody_asks_makes_nothing_and_each_quantity_once(
    monkeypatch: pytest.MonkeyPatch,
):
    kernel = Mock(wraps=module.kernel_within)
    monkeypatch.setattr(module, "kernel_within", kernel)
    step = look_at({"pde": rows(6)})
    assert (step.n_params, step.points, step.kept) == (4, "the training batch", {})
    assert kernel.call_count == 0
    panel = ask(step)
    panel.read(step)
    assert kernel.call_count == 1
    for name in SHARED:
        assert getattr(step, name) is getattr(step, name), name


def test_a_failure_is_kept_and_raised_to_all_who_ask(monkeypatch: pytest.MonkeyPatch):
    failing = Mock(side_effect=ZeroDivisionError("no such luck"))
    monkeypatch.setattr(module, "kernel_within", failing)
    step = look_at({"pde": rows(3)})
    for name in ("kernel", "sampled", "spectra", "traces", "kernel"):
        with pytest.raises(UnavailableError, match=r"^the kernel is not available$") as raised:
            getattr(step, name)
        assert raised.value.title == "the kernel"  # what failed, not what was asked for
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert failing.call_count == 1
    assert step.fingerprints.keys() == {"pde"}  # which needs no kernel


def test_a_closed_look_has_let_go_of_graph_and_kernel():
    step = look_at({"pde": rows(3)}, 4)
    assert step.traces.keys() == {"pde"}
    step.close()
    assert (step.step, step.loss, step.kept, step.found.residuals) == (4, None, {}, {})
    assert (step.traces, step.points) == ({}, "the training batch")


def test_again_is_another_look_with_nothing_known():
    second = {"pde": rows(3) @ torch.zeros(4, dtype=torch.float64)}
    first = look_at({"pde": rows(3)}, 4, find_again=lambda: StepTerms(second, {}))
    assert first.kernel.rows("pde") == 3
    after = first.again()
    assert (after.step, after.params, after.kept, after.loss) == (4, first.params, {}, None)
    assert after.residuals["pde"].tolist() == [0.0, 0.0, 0.0]
    assert "kernel" in first.kept


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_terms_that_are_not_finite_are_left_out_of_the_kernel_but_not_of_the_weights(bad: float):
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    parts = {"pde": bad * (rows(3) @ theta), "bc": rows(2) @ theta}
    loss = 3 * parts["pde"].square().mean() + parts["bc"].square().mean()
    step = look(loss, [theta], names=["pde", "bc"])
    assert (step.undefined, step.kernel.terms, list(step.residuals)) == (("pde",), ("bc",), ["bc"])
    assert step.effective_weights == {"pde": 3.0, "bc": 1.0}
    assert step.curvature is None  # the loss has another term


def test_without_a_kernel_there_are_still_parameters_and_weights():
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    loss = 3 * (float("nan") * (rows(2) @ theta)).square().mean()
    panel = ask(step := look(loss, {"theta": theta}.items(), names=["pde"], step=7))
    assert (step.n_params, step.traces, step.spectra) == (4, {}, {})
    found = values(panel)
    known = {"trace/pde", "effective_weight/pde", "drift/parameters", "verdict"}
    assert found.keys() == known
    assert found["verdict"] == Cause.DIVERGED
    assert (found["drift/parameters"], found["effective_weight/pde"]) == (0.0, 3.0)
    facts = panel.readings["step"].facts
    assert (facts["rows"], facts["undefined"]) == ({}, ["pde"])
    assert panel.readings["certificate"].facts["worst"] is None
    assert "step_size" not in panel.readings


def test_residuals_of_one_s_own_are_weighed_by_the_terms_of_their_names():
    net = Inverse()
    other = {"pde": net.c * net.net(X[:4]) - X[:4].sin()}
    step = look(net.loss(), net, names=["pde", "bc"], residuals=other)
    assert (list(step.residuals), step.found.complete) == (["pde"], False)
    assert step.effective_weights == pytest.approx({"pde": 3.0})
    torch.testing.assert_close(step.slopes["pde"], (2 * 3 / 4 * other["pde"].detach()).flatten())
    assert step.curvature is None  # the loss has another term
    whole = look(net.loss(), net, names=["pde", "bc"], residuals=other | {"bc": net.net(X[:1])})
    torch.testing.assert_close(whole.curvature["bc"], torch.full((1,), 40.0).double())
    same = net.residuals()
    assert not look(net.loss(same), net, names=["pde", "bc"], residuals=same).found.from_function


def test_residuals_stand_in_where_the_loss_cannot_be_seen_into():
    net = Inverse()
    for loss in (Opaque.apply(net.loss()), None):
        step = look(loss, net, residuals=net.residuals())
        assert (step.found.terms, step.losses, step.effective_weights) == ({}, {}, {})
        assert step.traces.keys() == {"pde", "bc"}
        assert (step.curvature, step.learning_rate) == (None, None)
    with pytest.raises(OpaqueLossError):
        look(Opaque.apply(net.loss()), net)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": None}, "look got neither a loss nor residuals; give the live loss"),
        ({"weights": {"ic": 2.0}}, r"weights has \['ic'\]; the terms of the loss are \['pde', 'bc"),
        ({"loss": torch.ones(2, requires_grad=True) * 2}, "one number"),
        ({"loss": torch.ones(())}, "graph"),
        ({"names": ["pde"]}, "expected 2 different names"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str):
    net = Inverse()
    with pytest.raises(ValueError, match=message):
        look(**{"loss": net.loss(), "model": net, "names": ["pde", "bc"]} | options)
    assert issubclass(OpaqueLossError, ValueError)


def test_part_of_the_parameters_has_no_curvature():
    net = Inverse()
    step = look(net.loss(), net, names=["pde", "bc"])
    part = replace(step, params=dict(net.net.named_parameters()), kept={})
    assert (step.over_all, part.over_all) == (True, False)
    assert step.curvature.keys() == {"pde", "bc"}
    assert part.curvature is None
