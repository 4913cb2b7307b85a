"""What may be given as residuals, and what is said of those that have no kernel."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import ResidualError
from pinn_ntk.graph.residuals import named_residuals
from tests.idioms import Labelled


def live(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True) * 2


def test_any_mapping_keeps_its_order_and_tensors_and_one_bare_tensor_is_called_residual():
    r = live(3, 1)
    assert list(named_residuals(r)) == ["residual"]
    assert named_residuals(r)["residual"] is r
    terms = {"pde": live(3), "bc": live(2, 2), 0: live(1)}
    found = named_residuals(MappingProxyType(terms))
    assert list(found) == ["pde", "bc", "0"]
    assert all(a is b for a, b in zip(found.values(), terms.values(), strict=True))


@pytest.mark.parametrize("no_grad", [False, True], ids=["grad", "no_grad"])
def test_a_scalar_becomes_one_row_of_the_same_graph(no_grad: bool):
    r = live(3).sum()
    with torch.set_grad_enabled(not no_grad):
        found = named_residuals(r)["residual"]
    assert found.shape == (1,)
    assert found.grad_fn.next_functions[0][0] is r.grad_fn


@pytest.mark.parametrize("kind", [Labelled, nn.Parameter])
@pytest.mark.parametrize("no_grad", [False, True], ids=["grad", "no_grad"])
def test_a_subclass_is_unwrapped_and_stays_live(kind: type[Tensor], no_grad: bool):
    r = nn.Parameter(torch.ones(3)) if kind is nn.Parameter else live(3).as_subclass(kind)
    with torch.set_grad_enabled(not no_grad):
        found = named_residuals(r)["residual"]
    assert type(found) is Tensor
    assert found.requires_grad
    assert torch.equal(found, torch.as_tensor(r))


UNIT = torch.tensor([1.0, 0.0, 0.0, 1.0])
UNUSABLE: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "none": (lambda: None, TypeError, "residuals is a NoneType; expected a live tensor"),
    "list": (lambda: [live(3)], TypeError, "residuals is a list"),
    "number": (lambda: {"pde": 0.3}, TypeError, "residual 'pde' is a float"),
    "numpy": (lambda: {"pde": np.ones(3)}, TypeError, "residual 'pde' is a ndarray"),
    "no_terms": (dict, ResidualError, "residuals is empty"),
    "detached": (lambda: live(3).detach(), ResidualError, "'residual' does not require grad"),
    "no_grad": (
        torch.no_grad()(lambda: live(3) * 2),
        ResidualError,
        r"made under torch.no_grad\(\)",
    ),
    "integers": (lambda: torch.arange(3), ResidualError, "does not require grad"),
    "no_rows": (lambda: live(0, 2), ResidualError, r"has no rows \(shape \(0, 2\)\)"),
    "complex": (
        lambda: {"bc": live(3) * 1j},
        ResidualError,
        "residual 'bc' has dtype torch.complex64.*view_as_real",
    ),
    "nan": (lambda: live(4) * float("nan"), ResidualError, "NaN or inf in 4 of 4 rows"),
    "inf": (lambda: live(4) / UNIT, ResidualError, "NaN or inf in 2 of 4 rows"),
}


@pytest.mark.parametrize(("residuals", "error", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_has_no_kernel_is_named(residuals: Callable[[], object], error, message: str):
    with pytest.raises(error, match=message):
        named_residuals(residuals())
