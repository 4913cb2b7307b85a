"""Subclasses of Tensor whose methods need attributes, or refuse what they do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import find_terms, look, tap
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.step.probe import FixedProbe
from pinn_ntk.graph.reference import reference_jacobian
from tests.asserts import assert_is_ntk_of
from tests.kernels import mlp
from tests.pinn import Pinn, batch, fit, same
from tests.zoo import make, series


class Labelled(Tensor):
    """Points with labels; whatever is done with them needs those, and hands them on."""

    labels: list[str]

    @staticmethod
    def __new__(cls, x: Tensor, _: list[str]) -> Labelled:
        return Tensor._make_subclass(cls, x, x.requires_grad)

    def __init__(self, _: Tensor, labels: list[str]) -> None:
        self.labels = labels

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        labels = [a.labels for a in args if isinstance(a, cls) and func.__name__ != "__get__"]
        made = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(made, cls) and labels:
            made.labels = labels[0]
        return made

    def numel(self) -> int:
        return super().numel() if self.labels else 0

    def clone(self, *args: Any, **kwargs: Any) -> Labelled:
        return Labelled(super().clone(*args, **kwargs), self.labels)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(index if self.labels else 0)

    def isfinite(self) -> Tensor:
        return super().isfinite() if self.labels else self


KNOWN = {
    *("__get__", "__set__", "autocast", "backward", "data", "detach", "grad", "requires_grad_"),
    *("add", "clone", "div", "linear", "mean", "mul", "pow", "rsub", "sub", "sum", "tanh", "to"),
    *("item", "numel", "size", "view", "as_subclass"),
}


class Strict(Tensor):
    """Refuses what it does not know."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ not in KNOWN:
            raise NotImplementedError(f"Strict does not know {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs or {})


class Own(nn.Parameter):
    """A parameter whose methods need an attribute that copies of it lose."""

    def numel(self) -> int:
        return super().numel() if self.unit else 0

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(index if self.unit else 0)

    def clone(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().clone(*args, **kwargs) if self.unit else self


WRAP: dict[str, Callable[[Tensor], Any]] = {
    "labelled": lambda x: Labelled(x, ["x"]),
    "strict": lambda x: x.as_subclass(Strict),
}


class Wrapped(Pinn):
    """Points, and with them residuals and loss, are of a subclass; so is a parameter."""

    wrap = staticmethod(WRAP["labelled"])
    tapped = False

    def __init__(self, **options: Any) -> None:
        super().__init__("adam", **options)
        self.net = mlp(1, 6, 6, 1)
        self.scale = Own(torch.ones((), dtype=torch.float64))
        self.scale.unit = "K"

    def named(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, Labelled):
            tensor.labels = ["u"]
        return tensor

    def residuals(self, batch: Any) -> dict[str, Tensor]:
        x, ends = (self.wrap(batch[n].as_subclass(Tensor).clone()) for n in ("x", "ends"))
        x.requires_grad_()
        u = self.net(x)
        u_x = self.named(torch.autograd.grad(u.sum(), x, create_graph=True)[0])
        found = {"pde": u_x - 1, "bc": self.net(ends) * self.scale}
        return {n: tap(r, n) for n, r in found.items()} if self.tapped else found

    def losses(self, residuals: Any) -> dict[str, Tensor]:
        return {name: (r**2).mean() for name, r in residuals.items()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        residuals = self.residuals(batch)
        self.jacobians = {n: reference(r, self) for n, r in residuals.items()}
        losses = self.losses(residuals)
        for name, loss in losses.items():
            self.log(name, loss.as_subclass(Tensor), batch_size=1)
        return losses["pde"] + losses["bc"]


def reference(residual: Tensor, module: nn.Module) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return reference_jacobian(residual.as_subclass(Tensor), list(module.parameters()))


def run(wrap: Any, *callbacks: Any, packed: bool = False, tapped: bool = False) -> Wrapped:
    module = make(Wrapped)
    module.wrap, module.tapped = wrap, tapped
    points = {n: wrap(x) for n, x in batch().items()} if packed else batch()
    fit(module, *callbacks, steps=3, batches=[points] * 3)
    return module


ROUTES: dict[str, dict[str, str]] = {
    "loss": {},
    "residuals": {"residuals": "residuals"},
    "probe": {"probe": "residuals"},
}
HOW = pytest.mark.parametrize("how", [{}, {"packed": True}, {"tapped": True}], ids=str)


@HOW
@pytest.mark.parametrize("route", ROUTES.values(), ids=list(ROUTES))
@pytest.mark.parametrize("wrap", WRAP.values(), ids=list(WRAP))
def test_training_is_measured_and_the_same(wrap: Any, route: Any, how: dict[str, bool]):
    monitor = NTKMonitor(every_n_steps=1, **route)
    module = run(wrap, monitor, **how)
    assert same(module, run(wrap, **how))
    for name, jacobian in module.jacobians.items():
        trace = float(jacobian.square().sum())
        assert series(monitor, f"ntk/trace/{name}")[2] == pytest.approx(trace, rel=1e-10)
    assert {"ntk/drift/parameters", "ntk/interference/pde/bc"} <= set(monitor.history)


@HOW
@pytest.mark.parametrize("wrap", WRAP.values(), ids=list(WRAP))
def test_training_is_balanced_as_on_plain_tensors(wrap: Any, how: dict[str, bool]):
    balancer, plain = NTKBalancer(every_n_steps=1), NTKBalancer(every_n_steps=1)
    module = run(wrap, balancer, **how)
    assert same(module, run(lambda x: x, plain, **how))
    assert balancer.weights == plain.weights


@pytest.mark.parametrize("wrap", WRAP.values(), ids=list(WRAP))
def test_without_a_trainer(wrap: Any):
    module = make(Wrapped)
    module.wrap = wrap
    residuals = module.residuals(batch())
    losses = module.losses(residuals)
    loss = losses["pde"] + losses["bc"]
    terms = find_terms(loss, names=losses)
    assert {name: type(term.residual) for name, term in terms.items()} == dict.fromkeys(
        ("pde", "bc"), Tensor
    )
    plain = {name: term.residual for name, term in terms.items()}
    assert_is_ntk_of(look(loss, module, names=losses).kernel, plain, module)


def test_a_probe_keeps_labels_and_class():
    probe = FixedProbe("residuals", 5)
    probe.freeze({"x": Labelled(torch.ones(3), ["t"])})
    assert (type(probe.batch["x"]), probe.batch["x"].labels) == (Labelled, ["t"])
    other = FixedProbe("residuals", 5)
    state = probe.state_dict()
    assert [type(tensor) for tensor in state["tensors"]] == [Tensor]
    other.load_state_dict(state)
    other.freeze({"x": Labelled(torch.zeros(3), ["t"])})
    assert (type(other.batch["x"]), other.batch["x"].labels) == (Labelled, ["t"])
    assert float(torch.sum(other.batch["x"].as_subclass(Tensor))) == 3.0
