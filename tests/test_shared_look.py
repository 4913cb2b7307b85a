"""Monitor and balancer that are due at one step look at it once, and see what each sees alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pinn_ntk.looks.look as looked
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import same
from tests.zoo import Manual, Noted, TwoNetworks, assert_close, make, train


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Terms of each kernel that is computed."""
    computed: list[tuple[str, ...]] = []
    plain = looked.kernel_within

    def counted(residuals: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(tuple(residuals))
        return plain(residuals, *args, **kwargs)

    monkeypatch.setattr(looked, "kernel_within", counted)
    return computed


def function(module: Noted, batch: Any) -> Any:
    module.runs = getattr(module, "runs", 0) + 1
    return module.residuals(batch)


ROUTES: dict[str, tuple[type[Noted], dict[str, Any], dict[str, Any]]] = {
    "loss": (Noted, {}, {}),
    "function": (Noted, {}, {"residuals": function}),
    "taps": (Manual, {"taps": True}, {}),
    "raw": (Manual, {"taps": True, "raw": True}, {}),
    "some": (Noted, {}, {"include": "pde", "params": "net.0.*"}),
    "unchecked": (Noted, {}, {"certify": False}),
}
PAIR = ("pde", "bc")


def run(route: str, *kinds: Any, order: int = 1) -> Any:
    kind, of_module, options = ROUTES[route]
    callbacks = [callback(every_n_steps=2, **options) for callback in kinds]
    module = make(kind, optimizer="adam", **of_module)
    train(module, *callbacks[::order], steps=5)
    return module, *callbacks


@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "balancer_first"])
@pytest.mark.parametrize("route", ROUTES)
def test_one_kernel_a_step_for_both(route: str, order: int, kernels: list[Any]):
    module, _, balancer = run(route, NTKMonitor, NTKBalancer, order=order)
    assert kernels == [("pde",) if route == "some" else PAIR] * 3
    if route == "function":  # a step: both look, and the forecast is judged when it is over
        assert module.runs == 6
    kernels.clear()
    alone, unshared = run(route, NTKBalancer)
    assert same(module, alone)
    assert balancer.weights == unshared.weights
    assert len(kernels) == 3
    for tag, series in unshared.history.items():
        np.testing.assert_array_equal(balancer.history[tag], series, err_msg=tag)


@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "balancer_first"])
def test_what_the_monitor_sees_is_what_it_sees_of_a_training_weighted_by_hand(order: int):
    """Of weights that it does not share a kernel with: the same numbers, but for their rounding."""
    _, monitor, _ = run("loss", NTKMonitor, NTKBalancer, order=order)
    hand, apart = make(Noted, optimizer="adam", weigh_every=2), NTKMonitor(every_n_steps=2)
    train(hand, apart, steps=5)
    assert set(monitor.history) == set(apart.history)
    for tag in set(apart.history) - {"ntk/overhead_fraction", "ntk/certificate"}:
        np.testing.assert_allclose(monitor.history[tag], apart.history[tag], rtol=1e-6, err_msg=tag)


OTHER: dict[str, dict[str, Any]] = {
    "params": {"params": "net.*"},
    "include": {"include": ["pde", "bc"]},
    "residuals": {"residuals": function},
    "probe": {"probe": "residuals"},
    "names": {"names": ["pde", "bc"]},
}


@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "balancer_first"])
@pytest.mark.parametrize("options", OTHER.values(), ids=list(OTHER))
def test_callbacks_of_other_settings_share_nothing(
    options: dict[str, Any], order: int, kernels: list[Any]
):
    callbacks = [NTKMonitor(every_n_steps=2, **options), NTKBalancer(every_n_steps=2)]
    module, alone = make(Noted, optimizer="adam"), make(Noted, optimizer="adam")
    train(module, *callbacks[::order], steps=5)
    assert kernels == [PAIR] * 6
    balancer = NTKBalancer(every_n_steps=2)
    train(alone, balancer, steps=5)
    assert same(module, alone)
    assert callbacks[1].weights == balancer.weights


@pytest.mark.parametrize("certify", [(True, False), (False, True)], ids=["monitor", "balancer"])
@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "balancer_first"])
def test_a_check_that_one_of_them_asks_for_is_made_for_both(
    certify: tuple[bool, bool], order: int, kernels: list[Any]
):
    monitor = NTKMonitor(every_n_steps=2, certify=certify[0])
    balancer = NTKBalancer(every_n_steps=2, certify=certify[1])
    train(make(Noted), *[monitor, balancer][::order], steps=5)
    assert kernels == [PAIR] * 3
    checked = monitor.history.get("ntk/certificate", [])
    assert [int(step) for step, _ in checked] == ([0, 2, 4] if certify[0] else [])
    assert certify[0] or "was not checked" in monitor.panel.summary()


@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "balancer_first"])
def test_of_several_losses_of_a_step_each_is_looked_at_once(order: int, kernels: list[Any]):
    callbacks = [NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)]
    module, alone = make(TwoNetworks, manual=True), make(TwoNetworks, manual=True)
    train(module, *callbacks[::order], steps=6)
    assert kernels == [PAIR, ("data",)] * 2
    train(alone, NTKBalancer(every_n_steps=2), steps=6)
    assert_close(module, alone)


def test_two_monitors_share_a_kernel_where_they_keep_as_many_rows(kernels: list[Any]):
    one, other, coarse = (
        NTKMonitor(every_n_steps=2, prefix=prefix, max_points=points)
        for prefix, points in (("ntk", 512), ("again", 512), ("coarse", 3))
    )
    train(make(Noted), one, other, coarse, steps=3)
    assert kernels == [PAIR] * 4
    for tag in ("trace/pde", "lambda_max/bc", "drift/kernel", "predicted_decrease_ratio"):
        np.testing.assert_array_equal(one.history[f"ntk/{tag}"], other.history[f"again/{tag}"])


def scaled(times: float) -> Any:
    """Functions of one name that differ."""
    return lambda module, batch: {n: times * r for n, r in module.residuals(batch).items()}


@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "balancer_first"])
def test_functions_of_one_name_are_not_taken_for_one(order: int):
    one, ten = (NTKMonitor(residuals=scaled(x), prefix=f"x{x}") for x in (1, 10))
    module = make(Noted, optimizer="adam")
    train(module, *[one, ten, NTKBalancer(residuals=scaled(100))][::order], steps=1)
    (of_one,), (of_ten,) = one.history["x1/trace/pde"], ten.history["x10/trace/pde"]
    assert of_ten[1] == pytest.approx(100 * of_one[1])
