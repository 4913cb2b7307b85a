"""Every function of torch that measures how large a tensor is: rows of the tensor, or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import mse_loss

from pinn_ntk import empirical_ntk, find_terms
from pinn_ntk.errors import OpaqueLossError
from pinn_ntk.graph.terms.completeness import completeness_error
from tests.kernels import mlp

Y = torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
EPS = 1e-6  # what pairwise_distance adds


def by_point(r: Tensor) -> Tensor:
    return torch.linalg.vector_norm(r, dim=1)


Loss = Callable[[Tensor], Tensor]

SERVED: dict[str, tuple[Loss, str, float, float]] = {
    "torch.norm": (lambda u: torch.norm(u - Y), "norm", 1.0, 0.0),
    "torch.norm dim": (lambda u: torch.norm(u - Y, dim=1).sum(), "norm", 5.0, 0.0),
    "torch.norm fro": (lambda u: torch.norm(u - Y, p="fro") ** 2, "square", 10.0, 0.0),
    "Tensor.norm 1": (lambda u: (u - Y).norm(1), "abs", 10.0, 0.0),
    "Tensor.norm 2": (lambda u: (u - Y).norm(2) ** 2, "square", 10.0, 0.0),
    "linalg.norm": (lambda u: torch.linalg.norm(u - Y) ** 2, "square", 10.0, 0.0),
    "linalg.vector_norm": (lambda u: torch.linalg.vector_norm(u - Y), "norm", 1.0, 0.0),
    "linalg.vector_norm 1": (lambda u: torch.linalg.vector_norm(u - Y, 1), "abs", 10.0, 0.0),
    "linalg.matrix_norm": (lambda u: torch.linalg.matrix_norm(u - Y) ** 2, "square", 10.0, 0.0),
    "dist": (lambda u: torch.dist(u, Y), "norm", 1.0, 0.0),
    "dist ** 2": (lambda u: torch.dist(u, Y) ** 2, "square", 10.0, 0.0),
    "dist.square() / N": (lambda u: torch.dist(Y, u).square() / 10, "square", 1.0, 0.0),
    "dist * dist": (lambda u: (d := torch.dist(u, Y)) * d, "square", 10.0, 0.0),
    "dist 1": (lambda u: u.dist(Y, 1), "abs", 10.0, 0.0),
    "mse_loss(dist, 0)": (
        lambda u: mse_loss(torch.dist(u, Y), torch.zeros(()).double()), "square", 10.0, 0.0
    ),
    "mse_loss(norm, 0)": (
        lambda u: mse_loss(by_point(u - Y), torch.zeros(5).double()), "square", 2.0, 0.0
    ),
    "pairwise_distance": (lambda u: functional.pairwise_distance(u, Y).sum(), "norm", 5.0, EPS),
    "pairwise_distance ** 2": (
        lambda u: functional.pairwise_distance(u, Y).square().mean(), "square", 2.0, EPS
    ),
    "PairwiseDistance": (lambda u: nn.PairwiseDistance(keepdim=True)(u, Y).sum(), "norm", 5.0, EPS),
    "PairwiseDistance 1": (lambda u: nn.PairwiseDistance(1)(u, Y).sum(), "abs", 10.0, EPS),
    "hypot": (lambda u: torch.hypot(*(u - Y).T).sum(), "norm", 5.0, 0.0),
    "hypot ** 2": (lambda u: torch.hypot(*(u - Y).T).square().mean(), "square", 2.0, 0.0),
    "l1_loss": (lambda u: functional.l1_loss(u, Y), "abs", 1.0, 0.0),
    "gaussian_nll_loss": (
        lambda u: functional.gaussian_nll_loss(u, Y, torch.ones(5, 2).double()), "square", 0.5, 0.0
    ),
    "renorm": (lambda u: torch.renorm(u - Y, 2, 0, 1e9).square().mean(), "square", 1.0, 0.0),
    "aten.norm": (lambda u: torch.ops.aten.norm(u - Y, 2) ** 2, "square", 10.0, 0.0),
    "aten.norm dtype": (
        lambda u: torch.ops.aten.norm(u - Y, 2, dtype=torch.float64) ** 2, "square", 10.0, 0.0
    ),
    "aten.norm dim dtype": (
        lambda u: torch.ops.aten.norm(u - Y, 2, [1], False, dtype=torch.float64).sum(),
        "norm", 5.0, 0.0,
    ),
    "frobenius_norm": (lambda u: torch.frobenius_norm(u - Y, (0, 1)) ** 2, "square", 10.0, 0.0),
    "norm_except_dim": (
        lambda u: torch.norm_except_dim(u - Y, 2, 0).sum(), "norm", 5.0, 0.0
    ),
    "stacked norms ** 2": (
        lambda u: torch.stack([u[:, 0].norm(), u[:, 1].norm()]).square().sum(), "", 0.0, 0.0
    ),
}  # fmt: skip
"""Loss, kind of its term, sum of the weights (of a norm one a norm), and what is added to u - y."""

REFUSED: dict[str, Loss] = {
    "norm 3": lambda u: torch.norm(u - Y, p=3) ** 2,
    "norm inf": lambda u: (u - Y).norm(math.inf) ** 2,
    "norm nuc": lambda u: torch.norm(u - Y, p="nuc") ** 2,
    "nuclear_norm": lambda u: torch.ops.aten.nuclear_norm(u - Y) ** 2,
    "matrix_norm nuc": lambda u: torch.linalg.matrix_norm(u - Y, "nuc"),
    "matrix_norm 2": lambda u: torch.linalg.matrix_norm(u - Y, 2) ** 2,
    "svdvals": lambda u: torch.linalg.svdvals(u - Y).square().sum(),
    "svd": lambda u: torch.svd(u - Y)[1].square().sum(),
    "dist 3": lambda u: torch.dist(u, Y, 3) ** 2,
    "dist inf": lambda u: torch.dist(u, Y, math.inf) ** 2,
    "cdist": lambda u: torch.cdist(u, Y).square().mean(),
    "cdist diagonal": lambda u: torch.cdist(u, Y).diagonal().square().mean(),
    "cdist of one": lambda u: torch.cdist(u[:, None], Y[:, None]).square().mean(),
    "_euclidean_dist": lambda u: torch.cdist(u.repeat(9, 1), Y.repeat(9, 1)).square().mean(),
    "pdist": lambda u: functional.pdist(u - Y).square().mean(),
    "pairwise_distance 3": lambda u: functional.pairwise_distance(u, Y, p=3).square().mean(),
    "_foreach_norm": lambda u: torch.stack(torch._foreach_norm([u - Y, u])).square().sum(),
    "std": lambda u: (u - Y).std() ** 2,
    "std_mean": lambda u: torch.std_mean(u - Y)[0].square(),
    "var": lambda u: (u - Y).var(),
    "var ** 2": lambda u: (u - Y).var(0).square().sum(),
    "var_mean": lambda u: torch.var_mean(u - Y)[0].square(),
    "half of norm 3": lambda u: (torch.norm(u - Y, 3) / 2)[None].square().mean(),
    "mse_loss(norm 3, 0)": lambda u: mse_loss(torch.norm(u - Y, 3), torch.zeros(()).double()),
    "cosine_similarity": lambda u: (1 - functional.cosine_similarity(u, Y)).mean(),
}

NO_NORMS = re.compile(
    r"_|(batch|layer|group|instance|rms|quantized|miopen|cudnn|native|local).*norm|.*embedding_renorm"
    r"|.*normal|normalize|set_flush|.*distributed|distributions|.*triplet|svd_lowrank|.*_(variadic)"
)
"""Layers, generators of numbers and the like."""


@pytest.mark.parametrize(
    "space", [torch, torch.linalg, functional, Tensor], ids=lambda s: s.__name__
)
def test_every_norm_of_torch_is_here(space: Any):
    sizes = re.compile(r"norm|dist|hypot|std|var|svd|nuc|similar")
    names = [
        n for n in dir(space) if sizes.search(n) and not n.endswith("_") and not NO_NORMS.match(n)
    ]
    words = " ".join([*SERVED, *REFUSED])
    assert [name for name in names if name not in words] == []


def outputs() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(2)
    net = mlp(2, 4, 2)
    return net, net(torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2))


@pytest.mark.filterwarnings("ignore:at..frobenius_norm is deprecated:UserWarning")
@pytest.mark.parametrize("name", SERVED)
def test_a_norm_has_the_rows_of_what_it_measures(name: str):
    (loss, kind, weights, added), (net, u) = SERVED[name], outputs()
    value = loss(u)
    terms = find_terms(value)
    assert completeness_error(value, terms) < 1e-14
    if not kind:  # several terms
        assert [t.kind for t in terms.values()] == ["norm", "norm"]
        assert sum(empirical_ntk({n: t.residual}, net).trace(n) for n, t in terms.items()) == (
            pytest.approx(empirical_ntk({"u": u}, net).trace("u"), rel=1e-13)
        )
        return
    (term,) = terms.values()
    assert term.kind == kind
    total = term.coefficient.sum() if kind == "norm" else term.weight.sum()
    assert float(total) == pytest.approx(weights, rel=1e-13)
    expected = empirical_ntk({"r": u - Y + added}, net)
    found = empirical_ntk({"r": term.residual}, net)
    assert found.rows("r") == 10
    assert found.trace("r") == pytest.approx(expected.trace("r"), rel=1e-13)
    torch.testing.assert_close(
        torch.linalg.eigvalsh(found["r"]), torch.linalg.eigvalsh(expected["r"]), atol=1e-12, rtol=0
    )
    size = float((u - Y + added).detach().norm())
    assert float(term.residual.detach().norm()) == pytest.approx(size, rel=1e-13)


@pytest.mark.parametrize("loss", REFUSED.values(), ids=list(REFUSED))
def test_a_norm_without_rows_is_refused(loss: Loss):
    _, u = outputs()
    with pytest.raises(OpaqueLossError, match="without passing a residual"):
        find_terms(loss(u))


LARGEST: dict[str, Loss] = {
    "max": lambda u: (u - Y).abs().max(),
    "max ** 2": lambda u: (u - Y).abs().max() ** 2,
    "amax ** 2": lambda u: (u - Y).abs().amax(0).square().sum(),
}


@pytest.mark.parametrize("loss", LARGEST.values(), ids=list(LARGEST))
def test_the_largest_entry_is_one_of_all_rows(loss: Loss):
    _, u = outputs()
    value = loss(u)
    (term,) = find_terms(value).values()
    assert (term.kind, term.residual.shape) == ("abs", (5, 2))
    assert completeness_error(value, [term]) < 1e-14


STATISTICS: dict[str, Loss] = {
    "distance": lambda u: (torch.dist(u, Y) - 1) ** 2,
    "norm": lambda u: ((u - Y).norm(3) - 1).square(),
    "spread": lambda u: mse_loss(u.std(), torch.ones(()).double()),
    "standardised": lambda u: ((u - u.mean()) / u.std() - Y).square().mean(),
    "mean": lambda u: (u - Y).mean() ** 2,
}


@pytest.mark.parametrize("loss", STATISTICS.values(), ids=list(STATISTICS))
def test_a_size_that_is_to_have_a_value_is_a_residual(loss: Loss):
    _, u = outputs()
    value = loss(u)
    (term,) = find_terms(value).values()
    assert term.kind == "square"
    assert term.residual.numel() == (10 if term.residual.ndim else 1)
    assert completeness_error(value, [term]) < 1e-14


def test_a_squared_distance_weighs_like_the_mean_that_it_is():
    """The case: {8.9, 1.13} for a mean of squares, and so for the distance over N."""
    _, u = outputs()
    loss = (u * 3).square().mean() + torch.dist(u, Y) ** 2 / 10
    by_distance, by_mean = (
        {n: float(t.weight.sum()) for n, t in find_terms(x, names=["pde", "data"]).items()}
        for x in (loss, (u * 3).square().mean() + (u - Y).square().mean())
    )
    assert by_distance == pytest.approx(by_mean, rel=1e-13)
