"""The table of cases, and the property checks: true of a kernel, false of a broken one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, reference_ntk
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.kernel.jacobian import FactoredJacobian
from tests import asserts
from tests.cases import CASES, Case, build_operator
from tests.kernels import explicit
from tests.networks import NETWORKS
from tests.operators import LAYOUTS, OPERATORS, SECOND, laplacian, points


def dense_kernel(residuals: dict[str, Tensor], params: object) -> NTK:
    """A kernel of Jacobians taken row by row, every block formed, which may be spoilt."""
    kernel = explicit(**{name: reference_jacobian(r, params) for name, r in residuals.items()})
    pairs = list(product(kernel, kernel))
    kernel._blocks = {(a, b): kernel.jacobian(a).gram(kernel.jacobian(b)) for a, b in pairs}
    kernel.certificate = dict.fromkeys(pairs, 0.0)
    return kernel


def test_ids_are_unique_and_every_factory_is_used():
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids)
    parts = {part for name in ids for part in name.split("-", maxsplit=1)}
    words = {word for name in ids for word in name.split("-")} | parts
    assert words >= {*NETWORKS, *OPERATORS, *LAYOUTS, *SECOND}
    assert {case.path for case in CASES} == {"fast", "generic", "any"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case_is_live_finite_and_reproducible(case: Case):
    state = torch.get_rng_state()
    residuals, _ = case.build()
    again, _ = case.build()
    assert torch.equal(torch.get_rng_state(), state)
    assert len(residuals) == 2
    for name, residual in residuals.items():
        assert residual.requires_grad
        assert residual.dtype == torch.float64
        assert residual.isfinite().all()
        assert torch.equal(residual, again[name])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_kernel_of_every_case_is_a_kernel(case: Case):
    kernel = dense_kernel(*case.build())
    asserts.assert_symmetric(kernel)
    asserts.assert_psd(kernel)
    asserts.assert_cross_blocks_transpose(kernel)
    for term in kernel.terms:
        assert (kernel.trace(term) == 0) == (case.id == "mlp-zero_jacobian" and term == "pde")


@pytest.mark.parametrize("network", ["mlp", "siren", "weight_factorised", "layer_norm_by_hand"])
@pytest.mark.parametrize("style", [style for style in SECOND if style != "sum"])
def test_all_styles_of_u_xx_have_one_kernel(network: str, style: str):
    expected = reference_ntk(*build_operator(network, "u_xx", "sum"))
    for pair, block in reference_ntk(*build_operator(network, "u_xx", style)).items():
        asserts.assert_near(block, expected[pair], 1e-11, f"K{pair}")


def test_checks_accept_a_true_kernel():
    residuals, params = build_operator("mlp", "u_xx", "sum")
    kernel = dense_kernel(residuals, params)
    asserts.assert_is_ntk_of(kernel, residuals, params)
    asserts.assert_certified(kernel)


def scale(jacobian: FactoredJacobian, product: str, by: float) -> None:
    right = getattr(jacobian, product)
    setattr(jacobian, product, lambda other: by * right(other))


SPOIL: dict[str, Callable[[NTK], object]] = {
    "slightly_off": lambda k: k["bc", "pde"].mul_(1 + 1e-9),
    "square_of_a_sum": lambda k: setattr(k, "trace", lambda term: float(k[term].sum())),
    "negative_direction": lambda k: k["bc"].sub_(1e-3 * k.trace("bc") * torch.eye(4)),
    "indefinite_cross_block": lambda k: [k["pde", "bc"].mul_(10), k["bc", "pde"].mul_(10)],
    "lopsided": lambda k: k["pde"].add_(1e-9 * k["pde"].triu()),
    "swapped_columns": lambda k: (J := k.jacobian("pde").factors["w"].gradients).copy_(J.flip(1)),
    "half_a_matvec": lambda k: scale(k.jacobian("bc"), "matvec", 0.5),
    "half_an_rmatvec": lambda k: scale(k.jacobian("bc"), "rmatvec", 0.5),
    "wrong_gram": lambda k: scale(k.jacobian("bc"), "gram", 2),
    "float32_block": lambda k: k._blocks.update({("bc", "bc"): k["bc"].float()}),
    "column_for_a_row": lambda k: setattr(k, "diagonal", lambda term: k[term].diagonal()[:, None]),
    "terms_left_out": lambda k: setattr(k, "terms", ("pde",)),
    "uncertified": lambda k: k.certificate.pop(("pde", "bc")),
    "refuted": lambda k: k.certificate.update({("pde", "bc"): 1e-3}),
}


BROKEN: dict[str, list[str]] = {
    # check -> what it has to refuse
    "matches_reference": ["slightly_off", "float32_block", "terms_left_out"],
    "symmetric": ["lopsided"],
    "psd": ["negative_direction", "indefinite_cross_block"],
    "cross_blocks_transpose": ["slightly_off", "wrong_gram"],
    "trace_is_sum_of_squared_gradients": ["square_of_a_sum", "column_for_a_row"],
    "jacobians_match_reference": ["swapped_columns"],
    "linear_operator_consistent": ["half_a_matvec", "half_an_rmatvec", "wrong_gram"],
    "certified": ["uncertified", "refuted"],
}


@pytest.mark.parametrize(
    ("spoil", "name"), [(spoil, check) for check, spoilt in BROKEN.items() for spoil in spoilt]
)
def test_checks_refuse_a_broken_kernel(spoil: str, name: str):
    residuals, params = build_operator("mlp", "u_xx", "sum")
    arguments: tuple[object, ...] = ()
    if name in {"jacobians_match_reference", "trace_is_sum_of_squared_gradients"}:
        arguments = residuals, params
    elif name == "matches_reference":
        arguments = (reference_ntk(residuals, params),)
    check, kernel = getattr(asserts, f"assert_{name}"), dense_kernel(residuals, params)
    check(kernel, *arguments)
    SPOIL[spoil](kernel)
    with pytest.raises(AssertionError):
        check(kernel, *arguments)


def kernel_in_order(order: Tensor) -> NTK:
    net = NETWORKS["mlp"](1, 1)
    x = points(6, 1).detach()[order].requires_grad_()
    return dense_kernel({"pde": laplacian(net(x), x), "bc": net(points(3, 1, seed=1))}, net)


def test_permutation_check():
    asserts.assert_permutation_equivariant(kernel_in_order, "pde", 6)
    in_place = kernel_in_order(torch.arange(6))
    with pytest.raises(AssertionError, match=r"permuted K\[pde\]"):
        asserts.assert_permutation_equivariant(lambda _order: in_place, "pde", 6)
