"""No measurement takes more backward passes than it said, and what it estimated is marked."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import NTKWarning, empirical_ntk, look
from pinn_ntk.analysis.kernel_gradient import kernel_gradient
from pinn_ntk.analysis.linearized import linearized_residuals
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.graph.jacobian.climb import Decoder
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.kernel.bounds import MAX_ROWS
from pinn_ntk.weights.trace import trace_weights
from tests.asserts import assert_near, backward_passes
from tests.looks import ask, values
from tests.networks import NETWORKS, stack
from tests.operators import grad, points
from tests.pinn import Pinn, same
from tests.zoo import make, series, train

N_PDE, N_BC = 240, 120


class Dense(torch.autograd.Function):
    """A linear layer whose backward pass is written by its user."""

    passes = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.mT + b

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        Dense.passes += 1
        x, w = ctx.saved_tensors
        return g @ w, g.mT @ x, g.sum(0)


class OwnLayer(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return Dense.apply(x, self.weight, self.bias)  # type: ignore[no-any-return]


class DeepONet(Pinn):
    """A trunk with a custom Function; two terms of many rows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.trunk = nn.Sequential(OwnLayer(1, 6), nn.Tanh(), nn.Linear(6, 6)).double()
        self.branch = stack([3, 6, 6]).double()
        generator = torch.Generator().manual_seed(7)
        self.s = torch.randn(N_PDE, 3, generator=generator, dtype=torch.float64)
        self.x = torch.rand(N_PDE, 1, generator=generator, dtype=torch.float64)

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        x = self.x.clone().requires_grad_()
        u = (self.trunk(x) * self.branch(self.s)).sum(1, keepdim=True)
        on_line = (self.trunk(self.x[:N_BC] ** 2) * self.branch(self.s[:N_BC])).sum(1)
        return {"pde": grad(u, x) - x.detach(), "bc": 3 * on_line}


@contextmanager
def all_said() -> Iterator[list[str]]:
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages += [str(w.message) for w in caught if issubclass(w.category, NTKWarning)]


def slow(rows: int = N_PDE) -> tuple[nn.Module, dict[str, Tensor]]:
    """Terms of ``rows`` and half as many rows that take a pass each."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), OwnLayer(5, 5), nn.Tanh(), nn.Linear(5, 1))
    net, x = net.double(), points(rows, 1).double().detach().requires_grad_()
    u = net(x)
    return net, {"pde": grad(u, x) - u.sin(), "bc": 2 * net(x[::2] + 1)[:, 0]}


@pytest.mark.usefixtures("float64")
class TestKernel:
    def test_the_rows_drawn_are_those_of_the_reference(self):
        net, residuals = slow()
        with all_said():
            kernel = empirical_ntk(residuals, net, max_rows=40)
        J = {term: reference_jacobian(r, net) for term, r in residuals.items()}
        drawn = {t: kernel.jacobian(t).sample.rows for t in J}  # type: ignore[union-attr]
        assert {t: len(rows) for t, rows in drawn.items()} == {"pde": 20, "bc": 20}
        for a in J:
            for b in J:
                expected = J[a][drawn[a]] @ J[b][drawn[b]].mT
                assert_near(kernel[a, b], expected, 1e-12, f"K {a} {b}")
        assert max(kernel.certificate.values()) < 1e-12
        for term, whole in J.items():
            diagonal = whole.square().sum(1)[drawn[term]]
            rows = len(whole)
            assert kernel.sampled(term) == (20, rows)
            assert kernel.trace(term) == pytest.approx(rows / 20 * float(diagonal.sum()))
            truth = float(whole.square().sum())
            assert abs(kernel.trace(term) - truth) < 3 * kernel.trace_error(term)
            assert 0 < kernel.trace_error(term) < 0.2 * truth
        assert kernel.sampled_terms == ("pde", "bc")
        assert repr(kernel).startswith("NTK(pde: ~20 of 240 rows, bc: ~20 of 120 rows;")

    def test_without_a_bound_all_rows_are_exact(self):
        net, residuals = slow(30)
        with all_said() as said:
            kernel = empirical_ntk(residuals, net)
        assert "Its exact rows are computed one by one instead: 30 vector-Jacobian" in said[0]
        assert "or set max_rows=24" in said[0]
        assert kernel.sampled("pde") == (30, 30)
        assert kernel.trace_error("pde") == 0.0
        assert kernel.sampled_terms == ()
        J = reference_jacobian(residuals["pde"], net)
        assert_near(kernel.jacobian("pde").dense(), J, 1e-12, "J")

    def test_terms_of_the_fast_path_stay_exact(self):
        net, residuals = slow()
        fast = stack([1, 5, 1])
        both = nn.ModuleList([net, fast])
        residuals["fast"] = fast(points(300, 1))
        with all_said():
            kernel = empirical_ntk(residuals, both, max_rows=16)
        assert kernel.sampled("fast") == (300, 300)
        assert kernel.sampled_terms == ("pde", "bc")
        exact = reference_jacobian(residuals["fast"], both).square().sum()
        assert kernel.trace("fast") == pytest.approx(float(exact))

    @pytest.mark.parametrize("max_rows", [8, 24])
    @pytest.mark.parametrize("certify", [True, False])
    def test_passes_are_at_most_as_many_as_were_said(self, max_rows: int, certify: bool):
        net, residuals = slow()
        Dense.passes = 0
        with all_said() as said:
            empirical_ntk(residuals, net, max_rows=max_rows, certify=certify)
        assert f"Of its 240 rows {max_rows // 2} are computed one by one" in said[0]
        # besides: what reads the graph, and two certificates a term; twice through the layer in pde
        assert Dense.passes <= 2 * max_rows + 2 * 2 * 10

    def test_it_is_said_before_the_first_row_is_taken(self, monkeypatch: pytest.MonkeyPatch):
        order: list[str] = []
        monkeypatch.setattr(warnings, "warn", lambda *_, **__: order.append("said"))
        pulled = torch.autograd.grad

        def noted(*args: Any, **kwargs: Any) -> Any:
            order.append("rows" if kwargs.get("is_grads_batched") else "pass")
            return pulled(*args, **kwargs)

        net, residuals = slow()
        monkeypatch.setattr(torch.autograd, "grad", noted)
        empirical_ntk(residuals, net, max_rows=8)
        assert order.count("said") == 2
        assert order.index("rows") > max(i for i, what in enumerate(order) if what == "said")

    def test_a_message_names_three_parameters_at_most(self):
        net = NETWORKS["batch_norm"](1, 1)
        with all_said() as said:
            empirical_ntk(net(points(6, 1)), net)
        names = [name for name, _ in net.named_parameters()]
        assert sum(name in said[0] for name in names) == 3
        assert "6 more" in said[0] or " more)" in said[0]

    @pytest.mark.parametrize("network", ["batch_norm", "conv_transposed"])
    def test_other_reasons_are_bounded_likewise(self, network: str):
        net = NETWORKS[network](1, 1)
        residual = net(points(80, 1))
        with all_said():
            kernel = empirical_ntk(residual, net, max_rows=12)
        J = reference_jacobian(residual, net)
        rows = kernel.jacobian("residual").sample.rows  # type: ignore[union-attr]
        assert len(rows) == 12
        assert_near(kernel["residual"], J[rows] @ J[rows].mT, 1e-12, "K")

    def test_a_large_result_that_all_rows_share_is_not_pulled_back_beyond_it(self):
        net, A = stack([1, 8, 1]), torch.randn(60, 300)
        residual = A @ net(points(300, 1).detach())
        with all_said() as said:
            kernel = empirical_ntk(residual, net, max_rows=20)
        assert kernel.sampled("residual") == (20, 60)
        assert "all rows share 300 entries" in said[0]
        J = reference_jacobian(residual, net)
        rows = kernel.jacobian("residual").sample.rows  # type: ignore[union-attr]
        assert_near(kernel["residual"], J[rows] @ J[rows].mT, 1e-11, "K")

    def test_what_needs_all_rows_says_so(self):
        net, residuals = slow()
        with all_said():
            kernel = empirical_ntk(residuals, net, max_rows=16)
        slopes = {term: r.detach() for term, r in residuals.items()}
        with pytest.raises(ValueError, match="holds 8 of the 240 rows"):
            kernel_gradient(kernel, slopes)
        with pytest.raises(ValueError, match="max_rows=None"):
            linearized_residuals(kernel, residuals, {})

    def test_weights_count_all_rows(self):
        net, residuals = slow()
        with all_said():
            some = empirical_ntk(residuals, net, max_rows=100)
            every = empirical_ntk(residuals, net)
        for convention in ("sum", "mean", "rate"):
            exact = trace_weights(every, convention)
            assert trace_weights(some, convention) == pytest.approx(exact, rel=0.1)


@pytest.mark.usefixtures("float64")
class TestLook:
    def look(self, **options: Any) -> Any:
        net, residuals = slow()
        losses = {term: r.square().mean() for term, r in residuals.items()}
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        step = look(sum(losses.values()), net, names=list(losses), optimizer=optimizer, **options)
        return net, losses, step

    def test_gradients_of_terms_are_exact(self):
        net, losses, step = self.look(max_rows=16)
        with all_said():
            for term, found in step.gradients.items():
                exact = torch.autograd.grad(losses[term], list(net.parameters()), retain_graph=True)
                assert_near(found, torch.cat([g.flatten() for g in exact]), 1e-12, term)

    def test_every_figure_is_marked(self):
        _, _, step = self.look(max_rows=16)
        with all_said():
            panel = ask(step)
        read = values(panel)
        assert read["trace_error/pde"] == step.kernel.trace_error("pde") > 0
        assert panel.readings["step"].facts["sampled"] == {"pde": [8, 240], "bc": [8, 120]}
        told = panel.summary()
        row = next(line for line in told.splitlines() if line.startswith("| pde"))
        assert row.count("~") == 5 - row.count("| -")
        assert "Rows measured (~): 8 of 240 of pde (standard error of the trace " in told
        assert " %), 8 of 120 of bc (standard error of the trace " in told
        assert "predicted_decrease_ratio" not in read

    def test_nothing_is_marked_where_all_rows_are_measured(self):
        _, _, step = self.look()
        with all_said():
            panel = ask(step)
        assert not any("trace_error" in tag for tag in values(panel))
        assert "~" not in panel.summary()
        assert panel.readings["step"].facts["sampled"] == {}

    def test_the_step_size_is_that_of_the_rows_drawn(self):
        net, _, step = self.look(max_rows=32)
        J = {term: reference_jacobian(r, net) for term, r in step.residuals.items()}
        with all_said():
            found = values(ask(step, "step_size"))["max_stable_lr"]
        parts = [J[t][step.rows_kept[t]] * (2 / len(step.rows_kept[t])) ** 0.5 for t in J]
        top = torch.linalg.svdvals(torch.cat(parts))[0] ** 2
        assert found == pytest.approx(2 / float(top))

    def test_blocks_of_many_terms_are_bounded_together(self):
        w = torch.ones(4, dtype=torch.float64, requires_grad=True)
        residuals = {f"r{i}": torch.randn(50, 4, dtype=torch.float64) @ w for i in range(12)}
        step = look(None, [w], residuals=residuals, max_points=20)
        assert sum(step.sampled.rows(t) for t in residuals) <= 80
        tight = look(None, [w], residuals=residuals, memory_budget=4 * 8 * 6 * 24**2)
        assert sum(tight.sampled.rows(t) for t in residuals) <= 24
        assert tight.traces == pytest.approx(step.traces)


def fitted(*callbacks: Any, steps: int = 3) -> tuple[Any, list[str], int]:
    module = make(DeepONet)
    Dense.passes = 0
    with all_said() as said:
        train(module, *callbacks, steps=steps)
    return module, said, Dense.passes


class TestCallbacks:
    def test_case_3(self):
        """A custom Function in the trunk of a DeepONet: bounded passes, right weights."""
        plain, _, without = fitted()
        monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
        module, said, passes = fitted(monitor, balancer)
        # three measured steps, pde goes twice through the layer; reading, certificates, checks
        measured = 2
        assert passes - without <= measured * (2 * MAX_ROWS + 80)
        rows = [m for m in said if "are computed one by one" in m]
        assert len(rows) == 2, "a term speaks once a fit"
        assert all(m.startswith("term ") for m in rows)
        exact_balancer = NTKBalancer(every_n_steps=2, max_rows=None)
        exact, _, _ = fitted(exact_balancer)
        for term in ("pde", "bc"):
            first = balancer.history[f"ntk/weight/{term}"][0, 1]
            error = balancer.history[f"ntk/weight_error/{term}"][0, 1]
            truth = exact_balancer.history[f"ntk/weight/{term}"][0, 1]
            assert 0 < error < 0.2 * truth
            assert abs(first - truth) < 2.5 * error
            assert series(monitor, f"ntk/trace_error/{term}").keys() == {0, 2}
        assert "ntk/weight_error/pde" not in exact_balancer.history
        del plain, module, exact

    def test_training_is_the_same_to_the_last_bit(self):
        plain, _, _ = fitted()
        monitored, said, _ = fitted(NTKMonitor(every_n_steps=2))
        assert same(plain, monitored)
        assert len([m for m in said if "one by one" in m]) == 2

    def test_weights_do_not_depend_on_the_clock_or_the_monitor(self):
        alone, beside = NTKBalancer(every_n_steps=2), NTKBalancer(every_n_steps=2)
        fitted(alone)
        fitted(NTKMonitor(every_n_steps=2, max_rows=20), beside)
        assert alone.weights == beside.weights

    def test_callbacks_of_other_bounds_measure_apart(self):
        monitor, balancer = NTKMonitor(every_n_steps=2, max_rows=20), NTKBalancer(every_n_steps=2)
        _, said, _ = fitted(monitor, balancer)
        rows = [m for m in said if "are computed one by one" in m]
        assert len(rows) == 4
        assert {n for n in (10, 12) if any(f"Of its 240 rows {n} " in m for m in rows)} == {10, 12}

    @pytest.mark.parametrize("kind", [NTKMonitor, NTKBalancer])
    @pytest.mark.parametrize("options", [{"max_rows": 0}, {"memory_budget": 0}, {"max_rows": 1.5}])
    def test_bounds_are_checked(self, kind: Any, options: dict[str, Any]):
        name, value = next(iter(options.items()))
        said = f"{kind.__name__}: {name} is {value}; expected an integer of at least 1"
        with pytest.raises(ValueError, match=said):
            kind(**options)

    def test_a_budget_guards_the_first_measurement(self, monkeypatch: pytest.MonkeyPatch):
        """Rows that would take an hour wait; other measurements are made at once."""
        monkeypatch.setattr("pinn_ntk.graph.jacobian.capture.timed", lambda run: (run(), 100.0))
        monitor = NTKMonitor(every_n_steps=1, budget=0.5)
        _, said, _ = fitted(monitor, steps=4)
        assert series(monitor, "ntk/trace/pde").keys() == {3}, "the last step, whatever it costs"
        assert any("put off until budget=0.5 allows it" in m for m in said)
        monkeypatch.undo()
        monitor = NTKMonitor(every_n_steps=1, budget=0.5)
        train(make(Pinn), monitor, steps=3)
        assert 0 in series(monitor, "ntk/trace/pde")

    def test_what_is_put_off_reads_the_graph_once(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("pinn_ntk.graph.jacobian.capture.timed", lambda run: (run(), 100.0))
        _, _, without = fitted(steps=6)
        monitor = NTKMonitor(steps=[0], budget=0.5)
        _, _, passes = fitted(monitor, steps=6)
        assert passes - without <= 2 * 60 + 2 * MAX_ROWS

    def test_a_copy_keeps_its_bounds(self):
        monitor = NTKMonitor(max_rows=7, memory_budget=10**6)
        assert copy.deepcopy(monitor).bounds == monitor.bounds == (10**6, 7)


def separable() -> tuple[Tensor, nn.Module]:
    """A term of a separable PINN: each point of a grid takes a row of one factor and of another."""
    nets = nn.ModuleList([stack([1, 8, 8, 4]) for _ in range(2)])
    x, t = (points(32, 1, seed).float().detach().requires_grad_() for seed in (0, 1))
    u_t = torch.stack([grad(nets[1](t)[:, i : i + 1], t)[:, 0] for i in range(4)], 1)
    return nets[0](x) @ u_t.mT + nets[0](x) @ nets[1](t).mT, nets


def upsampled() -> tuple[Tensor, nn.Module]:
    """Differences of a picture that a convolutional network paints."""
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), up, nn.Conv2d(4, 1, 3))
    return net(torch.randn(1, 2, 16, 16)).diff(dim=3), net


@pytest.mark.parametrize("build", [separable, upsampled])
def test_looking_for_components_takes_no_longer_than_rows(build, monkeypatch):
    torch.manual_seed(0)
    residual, net = build()
    passes = backward_passes(monkeypatch)
    with pytest.warns(NTKWarning, match=f"Of its {residual.numel()} rows 8 are computed"):
        empirical_ntk(residual, net, max_rows=8)
    assert len(passes) <= 80


def test_a_recurrent_network_is_not_climbed_for_nothing(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    net, last = nn.LSTM(2, 6, 2, batch_first=True).double(), nn.Linear(6, 1).double()
    u = last(net(torch.randn(6, 20, 2).double())[0])[..., 0]
    places: list[object] = []
    plain = Decoder._place

    def place(self: Decoder, *arguments: Any) -> Any:
        places.append(arguments)
        return plain(self, *arguments)

    monkeypatch.setattr(Decoder, "_place", place)
    with pytest.warns(NTKWarning, match="rows 8 are computed"):
        empirical_ntk(u[:, 1:] - 0.9 * u[:, :-1], nn.ModuleList([net, last]), max_rows=8)
    assert len(places) <= 2500


@pytest.mark.parametrize(
    ("outputs", "max_rows", "told"), [(40, 24, True), (40, None, False), (10, 24, False)]
)
def test_parts_that_take_passes_of_their_own_are_told_in_training(
    outputs: int, max_rows: int | None, told: bool
):
    net = stack([1, 6, outputs])
    with all_said() as said:
        kernel = empirical_ntk({"pde": net(points(50, 1).float())}, net, max_rows=max_rows)
    assert kernel.sampled_terms == ()
    part = "term 'pde': its 2000 rows fall into 40 parts (components of a point, or lines of a"
    assert [m.startswith(part) for m in said] == [True] * told
