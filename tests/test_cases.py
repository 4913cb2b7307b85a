"""The table of cases, and the property checks: true of a kernel, false of a broken one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import Tensor

from pinn_ntk import reference_ntk
from pinn_ntk.graph.reference import reference_jacobian
from tests import asserts
from tests.cases import CASES, Case, build_operator
from tests.networks import NETWORKS
from tests.operators import LAYOUTS, OPERATORS, SECOND, points


class DenseJacobian:
    """The interface of a Jacobian, over one written out, (R, P)."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.shape = rows, tuple(rows.shape)
        self.dense = lambda: self.rows
        self.matvec = lambda v: self.rows @ v
        self.rmatvec = lambda w: self.rows.mT @ w
        self.gram = lambda other: self.rows @ other.rows.mT
        self.as_linear_operator = lambda: aslinearoperator(self.rows.numpy())


class DenseKernel:
    """The interface of a kernel, over Jacobians written out."""

    def __init__(self, jacobians: dict[str, Tensor]) -> None:
        self.terms = tuple(jacobians)
        made = {term: DenseJacobian(rows) for term, rows in jacobians.items()}
        self.jacobian = made.__getitem__
        self.blocks = {(a, b): made[a].gram(made[b]) for a, b in product(made, made)}
        self.certificate = dict.fromkeys(self.blocks, 0.0)
        self.diagonal = lambda term: self[term].diagonal()

    def __getitem__(self, key: str | tuple[str, str]) -> Tensor:
        return self.blocks[(key, key) if isinstance(key, str) else key]

    def matrix(self) -> Tensor:
        return torch.cat([torch.cat([self[a, b] for b in self.terms], 1) for a in self.terms])

    def trace(self, term: str) -> float:
        return float(self.diagonal(term).sum())


def dense_kernel(case: Case) -> DenseKernel:
    residuals, params = case.build()
    return DenseKernel({name: reference_jacobian(r, params) for name, r in residuals.items()})


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
    kernel = dense_kernel(case)
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


@pytest.fixture
def case() -> Case:
    return next(case for case in CASES if case.id == "mlp-u_xx-sum")


def test_checks_accept_a_true_kernel(case: Case):
    residuals, params = case.build()
    asserts.assert_is_ntk_of(dense_kernel(case), residuals, params)
    asserts.assert_certified(dense_kernel(case))


def set_block(kernel: DenseKernel, a: str, b: str, block: Tensor) -> None:
    kernel.blocks[a, b] = block


def scale(jacobian: DenseJacobian, product: str, by: float) -> None:
    right = getattr(jacobian, product)
    setattr(jacobian, product, lambda other: by * right(other))


SPOIL: dict[str, Callable[[DenseKernel], object]] = {
    "slightly_off": lambda k: set_block(k, "bc", "pde", k["bc", "pde"] * (1 + 1e-9)),
    "square_of_a_sum": lambda k: setattr(k, "trace", lambda term: float(k[term].sum())),
    "negative_direction": lambda k: k["bc"].sub_(1e-3 * k.trace("bc") * torch.eye(4)),
    "indefinite_cross_block": lambda k: [k["pde", "bc"].mul_(10), k["bc", "pde"].mul_(10)],
    "lopsided": lambda k: set_block(k, "pde", "pde", k["pde"] + 1e-9 * k["pde"].triu()),
    "swapped_columns": lambda k: setattr(k.jacobian("pde"), "rows", k.jacobian("pde").rows.flip(1)),
    "half_a_matvec": lambda k: scale(k.jacobian("bc"), "matvec", 0.5),
    "half_an_rmatvec": lambda k: scale(k.jacobian("bc"), "rmatvec", 0.5),
    "wrong_gram": lambda k: scale(k.jacobian("bc"), "gram", 2),
    "float32_block": lambda k: set_block(k, "bc", "bc", k["bc"].float()),
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
def test_checks_refuse_a_broken_kernel(case: Case, spoil: str, name: str):
    residuals, params = case.build()
    arguments: tuple[object, ...] = ()
    if name in {"jacobians_match_reference", "trace_is_sum_of_squared_gradients"}:
        arguments = residuals, params
    elif name == "matches_reference":
        arguments = (reference_ntk(residuals, params),)
    check, kernel = getattr(asserts, f"assert_{name}"), dense_kernel(case)
    check(kernel, *arguments)
    SPOIL[spoil](kernel)
    with pytest.raises(AssertionError):
        check(kernel, *arguments)


def kernel_in_order(order: Tensor) -> DenseKernel:
    net = NETWORKS["mlp"](1, 1)
    x = points(6, 1).detach()[order].requires_grad_()
    residuals = {"pde": OPERATORS["u_xx"].residual(net, x), "bc": net(points(3, 1, seed=1))}
    return DenseKernel({name: reference_jacobian(r, net) for name, r in residuals.items()})


def test_permutation_check():
    asserts.assert_permutation_equivariant(kernel_in_order, "pde", 6)
    in_place = kernel_in_order(torch.arange(6))
    with pytest.raises(AssertionError, match=r"permuted K\[pde\]"):
        asserts.assert_permutation_equivariant(lambda _order: in_place, "pde", 6)
