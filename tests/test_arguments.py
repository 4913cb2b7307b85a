"""Arguments that cannot be right end the fit with one sentence; what only fails does not."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pinn_ntk import ArgumentError, NTKWarning
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import Pinn, calling, fit, ours, told_once


class Asked(Pinn):
    """A module with methods to name, right and wrong."""

    answers: Any = None

    def total(self, batch: Any) -> Any:
        return sum(r.square().mean() for r in self.residuals(batch).values())

    def numbers(self, batch: Any) -> Any:
        return {name: r.square().mean().item() for name, r in self.residuals(batch).items()}

    def terms(self, batch: Any) -> Any:
        return self.losses(self.residuals(batch))

    def otherwise(self, batch: Any) -> Any:
        return dict(zip(("eq", "wall"), self.residuals(batch).values(), strict=True))

    def one_of_them(self, batch: Any) -> Any:
        return {"pde": self.residuals(batch)["pde"]}

    def of_one_row(self, batch: Any) -> Any:
        """An integral over the points is one number, of a term that the loss has as one, too."""
        return {**self.residuals(batch), "mass": self.net(batch["x"]).mean()}

    def nothing(self, batch: Any) -> Any:
        return {}

    def without_batch(self) -> Any:
        return {}

    def in_turn(self, batch: Any) -> Any:
        """A dict the first time, then None."""
        self.answers = self.residuals(batch) if self.answers is None else 0
        return self.answers or None


def without_module(batch: Any) -> Any:
    return {}


def build() -> Asked:
    torch.manual_seed(1)
    return Asked()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    # argument of both callbacks, and how its sentence begins
    "one name too many": ({"names": ["pde", "bc", "ic"]}, r"names=\['pde', 'bc', 'ic'\] does not"),
    "one name twice": ({"names": ["pde", "pde"]}, r"names=\['pde', 'pde'\] does not fit"),
    "names in another order": (
        {"names": ["bc", "pde"]},
        r"names=.*contradicts the keys logged: 'bc' for the one logged as 'pde', .*\['pde', 'b",
    ),
    "include nothing": ({"include": "ic*"}, r"include='ic\*' matches none of the terms"),
    "params nothing": (
        {"params": "encoder.*"},
        r"params='encoder\.\*' matches none",
    ),
    "misspelt": ({"residuals": "resdiuals"}, "'resdiuals' is neither a method of Asked nor"),
    "no module of that path": ({"residuals": "no.such.path"}, "'no.such.path' is neither"),
    "no method": ({"residuals": "training"}, "'training' of Asked is a bool; expected a method"),
    "no batch": ({"residuals": "without_batch"}, r"without_batch takes \(\) .*called as without_b"),
    "no module": (
        {"residuals": without_module},
        r"without_module takes \(batch.* called as without_module\(module, batch\)",
    ),
    "the loss": ({"residuals": "total"}, "residuals='total' returned a Tensor; expected a dict"),
    "numbers": ({"residuals": "numbers"}, "residuals='numbers' returned a float as 'pde'"),
    "the losses": (
        {"residuals": "terms"},
        "residuals='terms' returned a single number as 'pde', whose term in the loss has 6 rows",
    ),
    "nothing": ({"residuals": "nothing"}, "residuals='nothing' returned an empty dict"),
}
AT_THE_START = {"params nothing", "misspelt", "no module of that path", "no method", "no batch"}
AT_THE_START |= {"no module"}


def stopped(callback: pl.Callback, **options: Any) -> tuple[ArgumentError, int]:
    """The error that ends a fit, and batches begun before."""
    begun: list[int] = []
    count = calling(on_train_batch_start=lambda *args: begun.append(1))
    with pytest.raises(ArgumentError) as raised:
        fit(build(), callback, count, **options)
    return raised.value, len(begun)


@pytest.mark.parametrize("kind", [NTKMonitor, NTKBalancer])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_stops_the_fit_at_once(case: str, kind: Any, recwarn: Any):
    argument, said = WRONG[case]
    error, batches = stopped(kind(**argument))
    with pytest.raises(ArgumentError, match=f"^{said}"):
        raise error
    assert batches == (0 if case in AT_THE_START else 1)
    shown = "".join(traceback.format_exception(error))
    assert "During handling" not in shown
    assert "direct cause" not in shown
    assert ours(recwarn) == []


@pytest.mark.parametrize(
    "case", ["misspelt", "no batch", "no module", "the loss", "numbers", "the losses"]
)
def test_so_does_a_wrong_probe(case: str):
    argument, said = WRONG[case]
    error, _ = stopped(NTKMonitor(probe=argument["residuals"]))
    with pytest.raises(ArgumentError, match=f"^{said.replace('residuals=', 'probe=')}"):
        raise error


def test_the_module_is_left_as_it_was_found():
    module = build()
    with pytest.raises(ArgumentError):
        fit(module, NTKMonitor(names=["a", "b", "c"]))
    assert "log" not in vars(module)


class SomeBatches(Asked):
    """The term bc is there in every other batch."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.losses(self.residuals(batch))
        kept = {name: value for name, value in losses.items() if name == "pde" or not batch_idx % 2}
        self.log_dict(kept)
        return sum(kept.values())  # type: ignore[return-value]


@pytest.mark.parametrize(
    "argument", [{"names": ["pde", "bc"]}, {"include": "bc"}, {"residuals": "in_turn"}]
)
@pytest.mark.parametrize("kind", [NTKMonitor, NTKBalancer])
def test_what_was_right_once_ends_no_fit_later(kind: Any, argument: dict[str, Any]):
    torch.manual_seed(1)
    with pytest.warns(NTKWarning, match="Training goes on"):
        run = fit(SomeBatches(), kind(every_n_steps=1, **argument), steps=5)
    assert run.global_step == 5


@pytest.mark.parametrize("use", ["probe", "residuals"])
@pytest.mark.parametrize(
    ("kind", "follows"), [(NTKMonitor, "what weight they have"), (NTKBalancer, "they stay unweigh")]
)
def test_names_that_the_loss_does_not_have_are_told(kind: Any, follows: str, use: str):
    if (kind, use) == (NTKBalancer, "probe"):
        return
    said = rf"{use}='otherwise' gives \['eq', 'wall'\], but no .* only \['pde', 'bc'\]; {follows}"
    with pytest.warns(NTKWarning, match=f"{kind.__name__}: {said}") as warned:
        fit(build(), kind(every_n_steps=1, **{use: "otherwise"}), steps=3)
    assert len(ours(warned)) == 1


class ByParts(Asked):
    """Manual optimisation, with a backward pass for each term."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        losses = self.losses(self.residuals(batch))
        self.log_dict(losses)
        self.optimizers().zero_grad()
        for loss in losses.values():
            self.manual_backward(loss)
        self.optimizers().step()


class AsTheyCome(ByParts):
    """Each term is logged when its turn has come, or with a step of the optimizer each."""

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for name in ("pde", "bc"):
            loss = self.losses(self.residuals(batch))[name]
            self.log(name, loss)
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()


@pytest.mark.parametrize("kind", [ByParts, AsTheyCome])
def test_names_that_another_loss_of_the_step_has_are_known(kind: type[ByParts]):
    torch.manual_seed(1)
    fit(kind(), NTKMonitor(every_n_steps=2, probe="residuals"), steps=6)
    options = {"every_n_steps": 2, "residuals": "residuals"}
    fit(kind(), NTKMonitor(**options), NTKBalancer(**options), steps=6)
    said = r"residuals='otherwise' gives \['eq', 'wall'\], .*, only \['pde'"
    with pytest.warns(NTKWarning, match=said):
        fit(kind(), NTKMonitor(every_n_steps=2, residuals="otherwise"), steps=6)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("one_of_them", r"='one_of_them' gives no residuals for \['bc'\] of the loss; they keep"),
        ("otherwise", "='otherwise' gives .* they stay unweighted"),
    ],
)
def test_a_term_that_the_function_does_not_give_is_not_said_to_stay_away(function: str, said: str):
    balancer = NTKBalancer(every_n_steps=6, residuals=function)
    with told_once(said):
        fit(build(), balancer, steps=24, limit_train_batches=6, max_epochs=-1)
    updates = [] if function == "otherwise" else [0, 6, 12, 18]
    assert [step for step, _ in balancer.history.get("ntk/weight/pde", [])] == updates


class Conserving(Asked):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.losses(self.of_one_row(batch))
        self.log_dict(losses)
        return sum(losses.values())  # type: ignore[return-value]


@pytest.mark.parametrize("use", ["probe", "residuals"])
@pytest.mark.parametrize(
    ("module", "function"),
    [(Asked, "residuals"), (Asked, "one_of_them"), (Conserving, "of_one_row")],
)
def test_names_that_it_has_are_not(module: Any, function: str, use: str):
    torch.manual_seed(1)
    fit(module(), NTKMonitor(every_n_steps=1, **{use: function}), steps=3)


def test_a_function_that_fails_ends_no_fit():
    def raising(module: Any, batch: Any) -> Any:
        raise KeyError("points")

    with pytest.warns(NTKWarning, match="KeyError: 'points'. Training goes on"):
        run = fit(build(), NTKMonitor(residuals=raising), steps=3)
    assert run.global_step == 3


def test_terms_of_a_function_of_its_own_need_no_match_in_the_loss():
    monitor = NTKMonitor(residuals=lambda module, batch: {"own": module.residuals(batch)["pde"]})
    monitor.finder.include = "ow*"
    fit(build(), monitor, steps=2)  # of terms that are left out nothing is said
    assert "ntk/trace/own" in monitor.history


RIGHT: list[Callable[[], dict[str, Any]]] = [
    lambda: {"names": ["pde", "bc"]},
    lambda: {"names": ["physics", "walls"]},
    lambda: {"params": ["net.0.*"]},
    lambda: {"include": ["b?"]},
]


@pytest.mark.parametrize("log", ["tensor", "item", "none", "sparse"])
@pytest.mark.parametrize("right", RIGHT)
def test_right_arguments_are_taken(right: Callable[[], dict[str, Any]], log: Any):
    if log == "none" and "include" in right():
        return
    torch.manual_seed(1)
    fit(Asked(log=log), NTKMonitor(every_n_steps=2, **right()), steps=3)
