"""The kernel of several terms: blocks, traces, weights, what it keeps and what it leaves alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import NTK, FactoredJacobian, empirical_ntk, reference_ntk
from tests.asserts import assert_matches_reference, assert_near
from tests.kernels import explicit
from tests.networks import NETWORKS
from tests.operators import grad, laplacian, points

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def net() -> nn.Module:
    return NETWORKS["mlp"](1, 1)


@pytest.fixture
def residuals(net: nn.Module) -> dict[str, Tensor]:
    """u_xx + u and u at the same 6 points of one network call, and u at 4 others."""
    x = points(6, 1)
    u = net(x)
    return {"pde": laplacian(u, x) + u, "data": u - 1, "bc": net(points(4, 1, seed=1)).squeeze(1)}


@pytest.fixture
def kernel(residuals: dict[str, Tensor], net: nn.Module) -> NTK:
    return empirical_ntk(residuals, net)


def two_terms() -> NTK:
    return explicit(a=torch.tensor([[1.0, 2.0], [0.0, 3.0]]), b=torch.tensor([[1.0, -1.0]]))


def test_blocks_and_words_by_hand():
    kernel = two_terms()
    assert kernel.terms == tuple(kernel) == ("a", "b")
    assert kernel["a"].tolist() == [[5.0, 6.0], [6.0, 9.0]]
    assert kernel["a", "b"].tolist() == [[-1.0], [-3.0]]
    assert kernel["b", "a"].tolist() == [[-1.0, -3.0]]
    assert kernel.matrix().tolist() == [[5.0, 6.0, -1.0], [6.0, 9.0, -3.0], [-1.0, -3.0, 2.0]]
    assert kernel.diagonal("a").tolist() == [5.0, 9.0]
    assert (kernel.trace("a"), kernel.trace("b")) == (14.0, 2.0)
    assert (kernel.rows("a"), kernel.rows("b")) == (2, 1)
    assert kernel.spectrum("b").eigenvalues.tolist() == [2.0]
    assert kernel.spectrum("a").trace == pytest.approx(14.0)
    assert kernel.spectrum().trace == pytest.approx(16.0)
    assert kernel.certificate == {}
    net = nn.Linear(2, 1)
    kernel = empirical_ntk({"pde": net(torch.ones(3, 2)), "bc": net(torch.rand(2, 2))}, net)
    assert repr(kernel) == "NTK(pde: 3 rows, bc: 2 rows; 3 parameters)"


@pytest.mark.parametrize("first", [("pde", "bc"), ("bc", "pde")])
def test_a_block_is_formed_once(kernel: NTK, first: tuple[str, str], monkeypatch):
    formed, gram = [], FactoredJacobian.gram
    counted = lambda *pair: formed.append(pair) or gram(*pair)  # noqa: E731
    monkeypatch.setattr(FactoredJacobian, "gram", counted)
    block = kernel[first]
    assert kernel[first] is block
    assert torch.equal(kernel[first[::-1]], block.mT)
    kernel.matrix()
    kernel.matrix()
    assert len(formed) == 6


def test_a_trace_forms_no_block(kernel: NTK, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FactoredJacobian, "gram", None)
    for term in kernel:
        assert kernel.trace(term) == float(kernel.diagonal(term).sum())


PAIRS = [("pde", "nope"), ("nope", "pde")]
ASK = ("trace", "diagonal", "rows", "jacobian", "spectrum", "__getitem__")


@pytest.mark.parametrize(
    ("ask", "key"), [*((ask, "nope") for ask in ASK), *((ASK[-1], k) for k in PAIRS)], ids=str
)
def test_unknown_terms_are_named(kernel: NTK, ask: str, key: str | tuple[str, str]):
    with pytest.raises(KeyError, match=r"no term 'nope' in this kernel; it has \['pde', 'data'"):
        getattr(kernel, ask)(key)


WEIGHTS: dict[str, dict[str, float | Tensor]] = {
    "numbers": {"a": 2.0, "b": 0.5},
    "zero": {"a": 0.0, "b": 1.0},
    "scalar_tensors": {"a": torch.tensor(2.0), "b": torch.tensor([0.5])},
    "by_row": {"a": torch.tensor([1.0, 4.0]), "b": 3.0},
    "column": {"a": torch.tensor([[1.0], [4.0]]), "b": torch.tensor(3)},
    "live": {"a": torch.tensor([1.0, 4.0], requires_grad=True), "b": 3.0},
    "more_terms": {"a": 1.0, "b": 2.0, "c": 3.0},
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_weighted_matrix(weights: dict[str, float | Tensor]):
    kernel = two_terms()
    entries = {n: torch.as_tensor(weights[n]).detach().flatten() for n in ("a", "b")}
    root = torch.cat([entries["a"] * torch.ones(2), entries["b"]]).sqrt().diag()
    found = kernel.weighted_matrix(weights)
    assert not found.requires_grad
    assert_near(found, root @ kernel.matrix() @ root, 1e-15, "D^(1/2) K D^(1/2)")
    assert_near(found, found.mT, 1e-15, "symmetry")


def test_weighted_matrix_says_where_gradient_descent_becomes_unstable(kernel: NTK):
    """Lambda_max is that of the Hessian 2 J^T D J of sum_a c_a mean(r_a^2) in Gauss-Newton form."""
    losses = zip(kernel, (1.0, 10.0, 0.1), strict=True)
    shares = {name: 2 * c / kernel.rows(name) for name, c in losses}
    dense = {name: kernel.jacobian(name).dense() for name in kernel}
    hessian = sum(shares[name] * dense[name].mT @ dense[name] for name in kernel)
    found = torch.linalg.eigvalsh(kernel.weighted_matrix(shares))[-1]
    assert float(found) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0}, r"no weight for term 'b'; got weights for \['a'\]"),
        ({"a": -1.0, "b": 1.0}, r"'a' has shape \(\) and minimum -1.0; expected one number or 2"),
        ({"a": torch.ones(3), "b": 1.0}, r"'a' has shape \(3,\)"),
        ({"a": torch.tensor([1.0, -2.0]), "b": 1.0}, "minimum -2.0"),
    ],
)
def test_weights_that_do_not_fit(weights: dict[str, float | Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        two_terms().weighted_matrix(weights)


def test_contraction_in_float32(residuals: dict[str, Tensor], net: nn.Module):
    kernel = empirical_ntk(residuals, net, dtype=torch.float32)
    for pair, block in reference_ntk(residuals, net).items():
        assert kernel[pair].dtype == torch.float32
        assert_near(kernel[pair].double(), block, 1e-5, f"K{pair}")
        assert not torch.equal(kernel[pair].double(), block)
    assert all(not kernel.jacobian(term).fallbacks for term in kernel)
    assert max(kernel.certificate.values()) < 1e-5


@pytest.mark.parametrize("budget", [1, 3000])
def test_budget_changes_nothing(residuals, net: nn.Module, kernel: NTK, budget: int):
    tiled = empirical_ntk(residuals, net, memory_budget=budget)
    assert_near(tiled.matrix(), kernel.matrix(), 1e-14, "matrix")


@pytest.mark.parametrize("network", ["mlp", "batch_norm"])
@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_training_goes_on_bit_by_bit(network: str):
    def gradients(measure: Callable[[dict[str, Tensor], nn.Module], object]) -> list[Tensor]:
        net = NETWORKS[network](1, 1)
        x = points(6, 1)
        u = net(x)
        residuals = {"pde": grad(u, x) - u, "data": u}
        for p in net.parameters():
            p.grad = torch.full_like(p, 0.1)
        measure(residuals, net)
        assert x.grad is None
        assert all(bool((p.grad == 0.1).all()) for p in net.parameters())
        sum(r.square().mean() for r in residuals.values()).backward()
        return [p.grad for p in net.parameters()]

    plain = gradients(lambda *_: None)
    measured = gradients(lambda residuals, net: empirical_ntk(residuals, net).matrix())
    assert all(torch.equal(a, b) for a, b in zip(plain, measured, strict=True))


@pytest.mark.parametrize("network", ["mlp", "dropout", "batch_norm"])
@pytest.mark.filterwarnings("ignore::pinn_ntk.NTKWarning")
def test_random_state_and_buffers_stay_as_they_are(network: str):
    net = NETWORKS[network](1, 1)
    residual = net(points(6, 1)).flip(0)

    def state() -> object:
        of_numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        tensors = [t.tolist() for t in (torch.get_rng_state(), *net.buffers())]
        return tensors, of_numpy, random.getstate()

    before = state()
    empirical_ntk(residual, net).spectrum()
    assert state() == before


def test_twice_the_same_to_the_last_bit_certified_or_not(residuals, net: nn.Module):
    first, second, bare = (empirical_ntk(residuals, net, certify=c) for c in (True, True, False))
    assert torch.equal(first.matrix(), second.matrix())
    assert first.certificate == second.certificate
    assert bare.certificate == {}
    assert torch.equal(bare.matrix(), first.matrix())


@pytest.mark.parametrize("no_grad", [False, True], ids=["grad", "no_grad"])
def test_it_is_right_and_nothing_of_it_is_live(residuals, net: nn.Module, no_grad: bool):
    with torch.set_grad_enabled(not no_grad):
        kernel = empirical_ntk(residuals, net)
        assert not kernel.matrix().requires_grad
        assert not kernel.jacobian("pde").dense().requires_grad
    assert_matches_reference(kernel, reference_ntk(residuals, net), 1e-13)
