"""The kernel read off the live graph against the row-by-row one, over the whole table of cases."""

from __future__ import annotations

import warnings

import pytest
import torch

from pinn_ntk import NTK, NTKWarning, empirical_ntk
from tests.asserts import assert_certified, assert_is_ntk_of, assert_permutation_equivariant
from tests.cases import CASES, Case
from tests.networks import stack
from tests.operators import laplacian
from tests.path_table import PATH, table, without_costs

FAST = [case for case in CASES if case.path == "fast"]
GENERIC = [case for case in CASES if case.path == "generic"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_block_equals_the_row_by_row_kernel(case: Case) -> None:
    """Fast cases without a word: a warning is an error there."""
    residuals, params = case.build()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if case.path == "fast" else "ignore", NTKWarning)
        kernel = empirical_ntk(residuals, params)
    assert_is_ntk_of(kernel, residuals, params, tol=1e-12)
    assert_certified(kernel, tol=1e-10)
    assert case.path != "fast" or not any(kernel.jacobian(term).fallbacks for term in kernel)


@pytest.mark.parametrize("case", FAST, ids=str)
def test_fast_cases_are_exact_without_a_certificate(case: Case) -> None:
    residuals, params = case.build()
    kernel = empirical_ntk(residuals, params, certify=False)
    assert kernel.certificate == {}
    assert_is_ntk_of(kernel, residuals, params, tol=1e-12)


@pytest.mark.parametrize("case", GENERIC, ids=str)
def test_generic_cases_say_so_once(case: Case) -> None:
    residuals, params = case.build()
    first = next(iter(residuals))
    with pytest.warns(NTKWarning, match=f"term {first!r}: .*vector-Jacobian products") as said:
        kernel = empirical_ntk({first: residuals[first]}, params)
    assert len(said) == 1
    assert kernel.jacobian(first).fallbacks


def test_the_kernel_stays_on_the_device(device: torch.device) -> None:
    net = stack([1, 20, 20, 2]).double().to(device)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64, device=device)[:, None].requires_grad_()
    u = net(x)
    residuals = {"pde": laplacian(u, x), "bc": u[torch.tensor([0, 8], device=device)]}
    kernel = empirical_ntk(residuals, net)
    assert kernel["pde", "bc"].device.type == device.type
    assert_is_ntk_of(kernel, residuals, net, tol=1e-12)
    assert_certified(kernel, tol=1e-10)


def test_rows_follow_the_points() -> None:
    net, x = stack([2, 6, 1]).double(), torch.rand(7, 2, dtype=torch.float64)

    def build(order: torch.Tensor) -> NTK:
        return empirical_ntk({"pde": net(x[order]), "bc": net(x[:2])}, net)

    assert_permutation_equivariant(build, "pde", rows=7)


def test_the_documented_table_is_what_the_engine_does() -> None:
    command = "python -m tests.path_table > docs/fast-path.md"
    found = without_costs(PATH.read_text(encoding="utf-8"))
    assert found == without_costs(table()), f"run: {command}"
