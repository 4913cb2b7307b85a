"""Whether the terms of a loss make up its gradient, and how a part that is missing shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pinn_ntk import IncompleteTermsError, find_terms
from pinn_ntk.graph.terms.completeness import completeness_error
from tests.idioms import Problem
from tests.networks import stack


def test_hook_that_changes_a_term_or_a_loss_that_is_not_finite_is_noticed(problem: Problem):
    loss = (problem.r**2).mean() + (problem.s**2).mean()
    find_terms(loss)["term_1"].head.register_prehook(lambda grads: (1.5 * grads[0],))
    with pytest.raises(IncompleteTermsError, match=r"relative \d\.\de-0[12]; expected 1\.5e-08"):
        find_terms(loss)
    assert list(find_terms(loss, check=False)) == ["term_0", "term_1"]
    with pytest.raises(IncompleteTermsError, match="relative nan"):
        find_terms(((problem.r / 0) ** 2).mean())


def test_error_is_the_share_of_the_missing_term(problem: Problem):
    pde, bc = (problem.r**2).mean(), (problem.s**2).mean()
    loss = pde + bc
    leaves = [*problem.net.parameters(), problem.x]

    def size(part: Tensor) -> float:
        gradient = torch.autograd.grad(part, leaves, retain_graph=True, materialize_grads=True)
        return float(torch.cat([g.detach().flatten() for g in gradient]).norm())

    terms = find_terms(loss)
    missing_bc = completeness_error(loss, [terms["term_0"]])
    assert missing_bc == pytest.approx(size(bc) / size(loss), rel=1e-12)
    assert completeness_error(loss, []) == pytest.approx(1, rel=1e-12)
    assert completeness_error(loss, terms) < 1e-15


def test_rounding_is_judged_by_the_terms_where_they_cancel():
    net, x, y = stack([2, 16, 1]), torch.rand(30, 2), torch.rand(30, 1)
    loss = 3 * functional.mse_loss(net(x), y) - (3 + 1e-6) * ((net(x) - y) ** 2).mean()
    assert completeness_error(loss, find_terms(loss)) < 1e-6


def test_zero_residual_is_complete_and_an_opaque_part_missing(problem: Problem):
    terms = find_terms(((problem.r * 0) ** 2).mean())
    assert torch.equal(terms["term_0"].slope, problem.zeros(5, 2))
    terms = find_terms((problem.r**2).mean())
    loss = (problem.r**2).mean() + problem.u.sum() + problem.net[0].weight.sum()
    assert completeness_error(loss, terms) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_passes_the_check(dtype: torch.dtype):
    u = stack([2, 64, 1]).to(dtype)(torch.rand(200, 2, dtype=dtype))
    loss = 0.3 * functional.mse_loss(u, torch.ones_like(u))
    terms = find_terms(loss + functional.huber_loss(u, 0 * u.detach()))
    assert [term.slope.dtype for term in terms.values()] == [dtype, dtype]


def test_autocast_is_judged_by_its_rounding():
    """1% off is within the rounding of bfloat16, though residuals and parameters are float32."""
    net, x = stack([2, 64, 1]), torch.rand(200, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = functional.mse_loss(net(x), torch.ones(200, 1))
        loss = first + functional.mse_loss(net(x + 1), torch.zeros(200, 1)) * 65536
    term = find_terms(loss)["term_1"]
    assert (term.residual.dtype, term.weight.dtype) == (torch.float32, torch.float32)
    handle = term.head.register_prehook(lambda grads: (1.01 * grads[0],))
    find_terms(loss)
    handle.remove()
    term.head.register_prehook(lambda grads: (1.3 * grads[0],))
    with pytest.raises(IncompleteTermsError, match=r"expected 8\.8e-02"):
        find_terms(loss)
