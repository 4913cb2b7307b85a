"""Some rows of a kernel in place of all."""

from __future__ import annotations

import pytest
import torch

from pinn_ntk import empirical_ntk, look
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.rows import kernel_of_rows, thinned
from pinn_ntk.kernel.strata import stratified_rows
from tests.looks import ask, linear, look_at, rows, values
from tests.networks import stack
from tests.operators import grad


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(5, 5, [0, 1, 2, 3, 4]), (6, 5, [0, 2, 4]), (10, 3, [0, 4, 8]), (9, 1, [0])],
)
def test_thinning_keeps_every_kth_row(count: int, most: int, kept: list[int]):
    A, B = rows(count), rows(1, seed=1)
    kernel, _ = linear(pde=A, bc=B)
    thin = thinned(kernel, most)
    torch.testing.assert_close(thin["pde"], A[kept] @ A[kept].mT)
    torch.testing.assert_close(thin["pde", "bc"], A[kept] @ B.mT)
    assert (thin is kernel) == (count <= most)
    assert thin.rows("pde") == len(kept) <= most


@pytest.mark.parametrize(("count", "most"), [(10, 10), (11, 10), (100, 7), (5, 1), (3, 8), (0, 2)])
def test_strata_part_the_rows_evenly(count: int, most: int):
    drawn = stratified_rows(count, most, seed=5)
    if count <= most:
        assert drawn.tolist() == list(range(count))
        return
    bounds = [i * count // most for i in range(most + 1)]
    for index, low, high in zip(drawn.tolist(), bounds[:-1], bounds[1:], strict=True):
        assert low <= index < high
    assert drawn.dtype == torch.int64


def test_strata_keep_every_part_of_a_joined_batch():
    kept = stratified_rows(1300, 13, seed=0)
    assert [int(((kept >= a) & (kept < a + 100)).sum()) for a in range(0, 1300, 100)] == [1] * 13


def test_every_row_of_a_stratum_is_drawn_as_often():
    drawn = torch.stack([stratified_rows(12, 3, seed=s) for s in range(2000)])
    shares = torch.stack([(drawn == row).double().sum(1).mean() for row in range(12)])
    torch.testing.assert_close(shares, torch.full((12,), 0.25).double(), atol=0.04, rtol=0)


def test_strata_are_drawn_from_a_generator_of_their_own():
    state = torch.get_rng_state()
    first = stratified_rows(1000, 30, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(stratified_rows(1000, 30, seed=1), first)
    assert not torch.equal(stratified_rows(1000, 30, seed=2), first)


def test_no_rows_cannot_be_kept():
    with pytest.raises(ValueError, match="max_points is 0; expected 1 or more"):
        stratified_rows(10, 0, seed=0)


def test_kernel_of_some_rows_in_the_order_given():
    A, B = rows(6), rows(2, seed=1)
    kernel, _ = linear(pde=A, bc=B)
    kept = [4, 0, 5]
    some = kernel_of_rows(kernel, {"pde": torch.tensor(kept)})
    torch.testing.assert_close(some["pde"], A[kept] @ A[kept].mT)
    torch.testing.assert_close(some["pde", "bc"], A[kept] @ B.mT)
    assert (some.rows("pde"), some.rows("bc")) == (3, 2)


def test_factors_of_weights_are_taken_row_by_row():
    net = torch.nn.Linear(30, 30).double()
    kernel = empirical_ntk(net(rows(8).repeat(1, 8)[:, :30]).tanh()[:, :2], net)
    kept = torch.tensor([3, 0, 9])
    expected = kernel["residual"][kept][:, kept]
    torch.testing.assert_close(kernel_of_rows(kernel, {"residual": kept})["residual"], expected)


def test_a_trace_is_the_same_before_and_after_its_block_is_formed():
    kernel, _ = linear(pde=rows(10))
    before, diagonal = kernel.trace("pde"), kernel.diagonal("pde")
    block = kernel["pde"]
    assert kernel.trace("pde") == pytest.approx(before, rel=1e-14)
    kernel.diagonal("pde").zero_()
    torch.testing.assert_close(block.diagonal(), diagonal)


def test_traces_are_of_all_rows_and_spectra_of_those_kept():
    A = rows(10)
    look = look_at({"pde": A}, 3, max_points=5)
    panel = ask(look)
    assert (panel.readings["step"].step, look.n_params) == (3, 4)
    assert panel.readings["step"].facts["rows"] == {"pde": 10}
    assert values(panel)["trace/pde"] == pytest.approx(float(A.square().sum()))
    assert look.spectra["pde"].trace == pytest.approx(float(A[::2].square().sum()))
    assert "step_size" not in panel.readings


def test_rows_kept_by_index_take_the_place_of_a_stride():
    A, kept = rows(10), [0, 3, 9]
    D = {"pde": torch.linspace(1, 2, 10, dtype=torch.float64)}
    rows_kept = {"pde": torch.tensor(kept)}
    look = look_at({"pde": A}, kept=rows_kept, known={"curvature": D}, max_points=2)
    panel = ask(look)
    root = D["pde"][kept].sqrt()[:, None] * A[kept]
    top = torch.linalg.eigvalsh(root @ root.mT)[-1] * 10 / 3
    assert values(panel)["max_stable_lr"] == pytest.approx(2 / float(top), rel=1e-12)
    assert look.spectra["pde"].trace == pytest.approx(float(A[kept].square().sum()))
    assert panel.readings["step"].facts["rows"] == {"pde": 10}
    assert look.traces["pde"] == pytest.approx(float(A.square().sum()))


def test_blocks_of_many_terms_are_formed_at_once(monkeypatch: pytest.MonkeyPatch):
    """Outer products of unequal numbers of sites, rows written out, and parameters not used."""
    torch.manual_seed(0)
    net, gain, other = stack([2, 6, 1]).double(), torch.ones(3).double(), torch.ones(2).double()
    gain.requires_grad_(), other.requires_grad_()
    residuals = {"other": torch.ones(4, 2).double() @ other}
    for i in range(10):
        x = torch.rand(3 + i, 2).double().requires_grad_()
        residuals[f"r{i}"] = grad(net(x), x)[:, 0] * gain[i % 3] if i % 2 else net(x)[:, 0]
    params = {**dict(net.named_parameters()), "gain": gain, "other": other}
    step = look(None, params, residuals=residuals)
    plain = empirical_ntk(residuals, params)
    made: list[int] = []
    gram = FactoredJacobian.gram
    monkeypatch.setattr(FactoredJacobian, "gram", lambda *args: made.append(1) or gram(*args))
    found = {(a, b): step.sampled[a, b] for a in residuals for b in residuals}
    assert len(made) == 2, "the first block of a single term, and all others"
    for (a, b), block in found.items():
        torch.testing.assert_close(block, plain[a, b], rtol=1e-13, atol=1e-13)


def test_a_look_at_few_terms_forms_their_blocks_one_by_one():
    assert not look_at({"pde": rows(6)}).sampled.at_once
