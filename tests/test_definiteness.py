"""Rank, its causes and what is said of them, on real accidents and on matrices made by hand."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pinn_ntk import Definiteness, Spectrum, definiteness, empirical_ntk
from pinn_ntk.analysis.definiteness import EQUAL
from pinn_ntk.analysis.repeated_rows import additive_form, duplicated_rows, first_alike, rounding
from pinn_ntk.analysis.wording import number
from pinn_ntk.kernel.rows import kernel_of_rows, thinned
from pinn_ntk.kernel.strata import stratified_rows
from tests.cases import CASES, Case
from tests.kernels import IN_FLOAT64, explicit, gaussian
from tests.networks import NETWORKS, Lambda, stack
from tests.operators import laplacian, navier_stokes, points

pytestmark = IN_FLOAT64


def found(J: Tensor, residual: Tensor | None = None, **options: object) -> Definiteness:
    return definiteness(explicit(pde=J), "pde", residual, **options)


def of(net: nn.Module, r: Tensor, residual: Tensor | None = None) -> Definiteness:
    return definiteness(empirical_ntk({"pde": r}, net, certify=False), "pde", residual)


@pytest.fixture
def net() -> nn.Module:
    return NETWORKS["mlp"](1, 1)


def test_full_rank_by_hand() -> None:
    full = found(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    assert (full.rows, full.parameters, full.rank, full.distinct, full.still) == (3, 3, 3, 3, 0)
    assert full.smallest == pytest.approx(1.0)
    assert full.must_decrease
    assert (full.duplicates, full.broadcast, full.cause) == ((), {}, "")
    assert full.statement == (
        "pde: positive definite with smallest eigenvalue 1; under gradient flow of this term alone "
        "the loss falls by that times |dL/dr|^2 a unit of time at least."
    )


def test_the_rate_is_a_bound_and_it_is_attained() -> None:
    J = torch.randn(6, 9)
    full = found(J)
    K = J @ J.mT
    g = torch.randn(500, 6)
    rates = torch.einsum("kn,nm,km->k", g, K, g) / g.square().sum(1)
    assert float(rates.min()) >= full.smallest * (1 - 1e-12)
    lowest = torch.linalg.eigh(K).eigenvectors[:, 0]
    assert float(lowest @ K @ lowest) == pytest.approx(full.smallest, rel=1e-10)


def test_slopes_in_the_null_space_stop_the_descent() -> None:
    """r = (w_0, w_0): with slopes (1, -1) nothing falls, with (1, 1) it does."""
    J = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    both = found(J)
    assert (both.rank, both.must_decrease) == (1, False)
    assert (J.mT @ torch.tensor([1.0, -1.0])).tolist() == [0.0, 0.0]
    assert found(J, torch.tensor([1.0, -1.0])).outside == pytest.approx(1.0)
    assert found(J, torch.tensor([1.0, 1.0])).outside == pytest.approx(0.0, abs=1e-15)
    assert found(J, torch.tensor([3.0, 1.0])).outside == pytest.approx(0.2)  # (1, -1) of (3, 1)


def test_share_outside_the_range_is_what_training_leaves() -> None:
    """Gradient flow on a mean of squares of a linear model ends at the least squares fit."""
    J, r = torch.randn(8, 3), torch.randn(8)
    step = torch.linalg.lstsq(J, -r[:, None]).solution
    left = float((r + (J @ step)[:, 0]).square().sum() / r.square().sum())
    assert found(J, r).outside == pytest.approx(left, rel=1e-10)
    assert f"({100 * left:.2g} % of |r|^2 lies there)" in found(J, r).statement
    assert found(torch.ones(2, 1), torch.zeros(2)).outside is None
    assert found(torch.ones(2, 1)).outside is None


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_a_zero_kernel(rows: int) -> None:
    zero = found(torch.zeros(rows, 2), torch.ones(rows))
    assert (zero.rank, zero.smallest, zero.still, zero.duplicates) == (0, 0.0, rows, ())
    assert (zero.must_decrease, zero.broadcast) == (False, {})
    assert zero.outside == pytest.approx(1.0)
    assert "kernel is zero" in zero.statement
    assert zero.cause.startswith("No parameter moves these residuals")


def decaying(rows: int, columns: int, rank: int) -> Tensor:
    return torch.randn(rows, columns) * torch.where(torch.arange(columns) < rank, 1.0, 1e-11)


NOISE = "eigenvalues that fall below the rounding noise"
KNOWN: dict[str, tuple[Callable[[], Tensor], tuple[int, int, int, int], str]] = {
    "one_row": (lambda: torch.tensor([[3.0, 4.0]]), (1, 2, 1, 0), ""),
    "wide": (lambda: torch.randn(7, 4), (4, 4, 7, 0), "more rows than parameters (4)"),
    "rank_8": (lambda: decaying(60, 20, 8), (8, 20, 60, 0), NOISE),  # has another cause
    "rank_19": (lambda: decaying(60, 20, 19), (19, 20, 60, 0), "more rows than parameters (20)"),
    "rank_20": (lambda: decaying(60, 20, 20), (20, 20, 60, 0), "more rows than parameters (20)"),
    "points_twice": (  # which does not explain so low a rank
        lambda: decaying(10, 20, 4).repeat(2, 1) + 0.0,
        (4, 20, 10, 0),
        f"{EQUAL} (10 different ones of 20) and {NOISE}",
    ),
    "still": (
        lambda: torch.randn(6, 8) * torch.tensor([1, 1, 1, 0, 0, 1e-18])[:, None],
        (3, 8, 6, 3),
        "3 rows that no parameter moves",
    ),
    "sign": (lambda: torch.ones(3, 4) * torch.tensor([[1.0], [-1.0], [2.0]]), (1, 4, 3, 0), ""),
}


@pytest.mark.parametrize("name", KNOWN)
def test_rank_and_the_cause_of_its_loss(name: str) -> None:
    build, expected, cause = KNOWN[name]
    seen = found(build())
    assert (seen.rank, seen.parameters, seen.distinct, seen.still) == expected
    assert seen.cause == (f"Rank is lost by {cause}." if cause else "")
    assert seen.must_decrease == (name == "one_row")
    assert name != "one_row" or seen.smallest == 25.0


def test_rank_that_is_lost_for_no_reason_seen(net: nn.Module) -> None:
    """Points closer than the network tells apart in double precision."""
    x = torch.linspace(0, 1, 40)[:, None]
    smooth = of(net, net(x))
    assert smooth.rank < 40
    assert (smooth.cause, smooth.duplicates) == ("", ())
    assert smooth.statement.endswith(f"the other {40 - smooth.rank} directions.")


def test_the_noise_is_that_of_the_model(net: nn.Module) -> None:
    """Of a float32 model more is noise, though K is in float64."""
    x = torch.linspace(0, 1, 40)[:, None]
    fine, coarse = of(net, net(x)), of(net, net.float()(x.float()))
    top = Spectrum.of(empirical_ntk({"data": net.double()(x)}, net)["data"]).lambda_max
    assert coarse.floor == pytest.approx(40 * 2**-46 * top, rel=1e-3)
    assert coarse.floor > 10 * fine.floor


def test_a_known_spectrum_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    J, r = torch.randn(5, 9), torch.randn(5)
    bare, full = (explicit(pde=J).spectrum("pde", eigenvectors=known) for known in (False, True))
    alone, expected = found(J), found(J, r)
    monkeypatch.setattr(Spectrum, "of", None)
    assert found(J, r, spectrum=bare) == alone  # without the share
    assert found(J, r, spectrum=full) == expected


def test_boundary_copies_of_poisson(net: nn.Module) -> None:
    """50 copies of either end, as Wang, Yu, Perdikaris 2022 take them: rank 2 of 100."""
    u = net(torch.tensor([0.0, 1.0]).repeat_interleave(50)[:, None])
    copies = of(net, u, u.detach())
    assert (copies.rank, copies.rows, copies.distinct) == (2, 100, 2)
    assert copies.duplicates == (tuple(range(50)), tuple(range(50, 100)))
    assert (copies.broadcast, copies.must_decrease) == ({}, False)
    assert copies.cause == f"Rank is lost by {EQUAL} (2 different ones of 100)."
    assert copies.statement.startswith(
        "pde: rank 2 of 100, the smallest eigenvalue above the rounding"
    )
    assert "(none of |r|^2 lies there)" in copies.statement


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in {"dropout", "batch_norm"}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_duplicated_points_under_every_network(name: str, dtype: torch.dtype) -> None:
    net = NETWORKS[name](1, 1).to(dtype)
    x = points(5, 1).detach().to(dtype)[[0, 1, 2, 0, 3, 4, 1, 0]].requires_grad_()
    residuals = {"u": net(x), "u_xx": laplacian(net(x), x)}
    kernel = empirical_ntk(residuals, net, certify=False)
    for term in residuals:
        assert definiteness(kernel, term).duplicates == ((0, 3, 7), (1, 6)), term


def test_close_points_are_not_duplicates(net: nn.Module) -> None:
    assert of(net, net(torch.tensor([[0.3], [0.3 + 1e-5], [0.9]]))).duplicates == ()


def test_periodic_pairs() -> None:
    """Both ends of a period are one point for a network of sines and cosines, in rounding."""
    layers = stack([2, 6, 1])

    def u(t: Tensor, x: float) -> Tensor:
        return layers(torch.cat([t, torch.sin(torch.full_like(t, x))], dim=1))

    t = torch.rand(3, 1)
    left, right = u(t, -torch.pi), u(t, torch.pi)
    residuals = {"ends": torch.cat([left, right]), "jump": left - right, "data": u(t, 0.3)}
    kernel = empirical_ntk(residuals, layers)
    ends = definiteness(kernel, "ends")
    assert ends.duplicates == ((0, 3), (1, 4), (2, 5))
    assert ends.rank <= 3
    assert definiteness(kernel).still == 3  # the jump has no gradient but that of rounding


def test_a_corner_that_two_terms_share(net: nn.Module) -> None:
    x, y = torch.tensor([[0.0], [0.5]]), torch.tensor([[1.0], [0.5], [0.0]])
    kernel = empirical_ntk({"ic": net(x), "bc": net(y)}, net)
    assert definiteness(kernel, "ic").duplicates == ()
    shared = definiteness(kernel)
    assert shared.duplicates == ((0, 4), (1, 3))
    assert shared.name == "the whole kernel"
    assert "; under gradient flow the loss falls unless" in shared.statement


# --- Duplicated points among rows left out


def test_every_point_twice_is_seen_where_none_is_kept_twice(net: nn.Module, monkeypatch) -> None:
    """Two points in a row, of which every third is kept: in different pairs."""
    net = net.float()
    x = torch.linspace(0, 1, 100, dtype=torch.float32).repeat_interleave(2)[:, None]
    whole = empirical_ntk({"bc": net(x)}, net)
    kept = thinned(whole, 67)
    assert definiteness(kept, "bc").duplicates == ()
    seen = definiteness(kept, "bc", whole=whole)
    assert (seen.rows, seen.duplicates, seen.searched) == (67, (), (200, 100))
    assert f"{EQUAL} (100 different ones of 200)" in seen.cause
    assert definiteness(kept, whole=whole).searched == (200, 100)
    assert definiteness(whole, "bc", whole=whole).searched is None  # none left out
    monkeypatch.setattr("pinn_ntk.analysis.definiteness.distinct_rows", None)  # counted before
    assert definiteness(kept, "bc", whole=whole, distinct={"bc": 100}) == seen


def test_full_rank_of_the_rows_kept_is_not_that_of_all() -> None:
    rows = torch.randn(6, 40)
    seen = found(rows, whole=explicit(pde=torch.cat([rows, rows])))
    assert (seen.rank, seen.rows, seen.must_decrease) == (6, 6, False)
    assert seen.statement == (
        "pde on the 6 of 12 rows looked at: positive definite with smallest eigenvalue "
        f"{number(seen.smallest)}. Rank is lost by {EQUAL} (6 different ones of 12)."
    )
    different = found(rows, whole=explicit(pde=torch.cat([rows, rows + 1e-6])))
    assert (different.searched, different.must_decrease) == (None, False)
    for kept in (rows, torch.cat([rows, rows]), 0 * rows):
        said = found(kept, whole=explicit(pde=torch.cat([kept, rows + 1e-6]))).statement
        assert "looked at" in said
        assert "loss" not in said  # of gradient flow a part of the rows says nothing


def test_a_share_of_the_residual_is_given_of_a_term_and_not_of_all() -> None:
    """That of all terms ignores their weights in the loss."""
    kernel = explicit(pde=torch.ones(2, 3), bc=torch.ones(1, 3))
    residuals = {"pde": torch.tensor([1.0, 0.0]), "bc": torch.ones(1)}
    assert "50 % of |r|^2" in definiteness(kernel, "pde", residuals["pde"]).statement
    whole = definiteness(kernel, residuals=residuals)
    assert whole.outside is not None
    assert "|r|^2" not in whole.statement


def test_few_repetitions_among_many_rows_are_not_named() -> None:
    rows = torch.randn(30, 40)
    few, many = (found(rows, whole=explicit(pde=torch.cat([rows, rows[:n]]))) for n in (2, 5))
    assert (few.searched, many.searched) == (None, (35, 30))


ACCIDENTS: dict[str, Callable[[nn.Module, int], Tensor]] = {
    "data_column": lambda net, n: net(points(n, 1)) - torch.randn(n),
    "data_row": lambda net, n: net(points(n, 1)).squeeze(1) - torch.randn(n, 1),
    "derivative_and_value": lambda net, n: laplacian(net(x := points(n, 1)), x) - net(x)[:, 0],
    "source": lambda net, n: laplacian(net(x := points(n, 1)), x) - torch.sin(x.detach()[:, 0]),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("n", [3, 6, 13])
def test_accidental_broadcasting(net: nn.Module, accident: str, n: int) -> None:
    r = ACCIDENTS[accident](net, n)
    assert r.shape == (n, n)
    additive, said = set(), f"broadcast to ({n}, {n}) by accident, likely (N,) - (N, 1); check"
    if accident == "derivative_and_value":  # all rows differ: it might be meant
        additive, said = {"pde"}, "or a difference that was broadcast by accident; check"
    for residual in (None, r.detach()):
        seen = of(net, r, residual)
        assert (seen.broadcast, seen.must_decrease) == ({"pde": (n, n)}, False)
        assert seen.additive == additive
        assert said in seen.statement


def test_a_large_accident_is_seen_in_all_rows_and_not_in_some(net: nn.Module) -> None:
    whole = empirical_ntk({"pde": ACCIDENTS["data_column"](net, 40)}, net, certify=False)
    kept = thinned(whole, 200)
    assert definiteness(kept, "pde").broadcast == {}
    seen = definiteness(kept, "pde", torch.zeros(40, 40), whole=whole)
    assert seen.broadcast == {"pde": (40, 40)}
    assert (seen.rows, seen.outside) == (200, None)


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_accidents_of_a_float32_model(net: nn.Module, accident: str) -> None:
    torch.set_default_dtype(torch.float32)
    r = ACCIDENTS[accident](nn.Sequential(Lambda(Tensor.float), net.float()), 6)
    assert of(net, r).broadcast == {"pde": (6, 6)}


def test_a_column_and_a_row_of_other_length(net: nn.Module) -> None:
    """(4, 1) - (7,): without its shape it might as well be 7 copies of 4 points."""
    r = net(points(4, 1)) - torch.randn(7)
    known, unknown = of(net, r, r.detach()), of(net, r)
    assert known.broadcast == {"pde": (4, 7)}
    assert "broadcast to (4, 7) by accident, likely (7,) - (4, 1); check" in known.cause
    assert unknown.broadcast == {}
    assert "4 different ones of 28" in unknown.cause


INNOCENT: dict[str, Callable[[nn.Module], Tensor]] = {
    "square_number_of_points": lambda net: net(points(16, 1)),
    "grid": lambda net: net(points(16, 1)).reshape(4, 4),
    "grid_with_a_derivative": lambda net: laplacian(net(x := points(9, 1)), x).reshape(3, 3),
    "copies": lambda net: net(torch.tensor([0.0, 1.0]).repeat_interleave(50)[:, None]),
    "copies_in_turn": lambda net: net(torch.tensor([0.0, 1.0]).repeat(50)[:, None]),
    "copies_of_one_point": lambda net: net(torch.zeros(9, 1)),
    "two_ends_twice": lambda net: net(torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None]),
    "one_row": lambda net: net(points(1, 1)),
    "zero": lambda net: 0 * net(points(9, 1)),
    "three_components_at_three_points": lambda net: navier_stokes(net, points(3, 2)),
}


@pytest.mark.parametrize("case", INNOCENT)
def test_what_is_no_accident(net: nn.Module, case: str) -> None:
    net = NETWORKS["mlp"](2, 3) if "components" in case else net
    r = INNOCENT[case](net)
    assert of(net, r).broadcast == of(net, r, r.detach()).broadcast == {}


@pytest.mark.parametrize(("n", "m"), [(5, 3), (3, 3), (30, 4)])
def test_components_that_differ_by_a_shift_are_no_mistake(net: nn.Module, n: int, m: int) -> None:
    net.shift = nn.Parameter(torch.randn(m))  # components share all but a bias each
    r = net(points(n, 1)) + net.shift - torch.randn(n, m)
    seen = of(net, r, r.detach())
    assert (seen.broadcast, seen.additive) == ({"pde": (n, m)}, {"pde"})
    assert seen.rank <= n + m - 1
    assert seen.cause == (
        f"The {n * m} rows of pde, ({n}, {m}), are sums a_i + b_j, of rank {n + m - 1} at most: "
        "components that differ by a shift, or a difference that was broadcast by accident; check "
        "shapes of prediction and target."
    )


def test_stratified_rows_keep_all_components(net: nn.Module) -> None:
    """Every second row of two components is the first; what is wrong with the second shows."""
    u = net(points(20, 1))
    r = torch.cat([u, u.detach()], 1)  # (20, 2), the second detached by accident
    whole = empirical_ntk({"pde": r}, net, certify=False)
    kept = kernel_of_rows(whole, {"pde": stratified_rows(40, 20, seed=0)})
    assert definiteness(thinned(whole, 20), "pde", whole=whole).still == 0
    assert 5 <= definiteness(kept, "pde", whole=whole).still <= 15


LAYOUTS = [case for case in CASES if case.id.count("-") == 1]


@pytest.mark.parametrize("case", LAYOUTS, ids=str)
def test_only_what_was_broadcast_is_called_so(case: Case) -> None:
    residuals, params = case.build()
    kernel = empirical_ntk(residuals, params, certify=False)
    accident = case.id in {"mlp-broadcast_data", "mlp-broadcast_unknown"}
    expected = {"pde": (6, 6)} if accident else {}
    assert definiteness(kernel, None, residuals).broadcast == expected


def test_three_copies_of_three_points_need_the_shape(net: nn.Module) -> None:
    """As many rows as an accident would leave, in the same order: a shape (9, 1) tells them."""
    r = net(points(3, 1).repeat(3, 1))
    assert of(net, r).broadcast == {"pde": (3, 3)}
    assert of(net, r, r.detach()).broadcast == {}


def test_on_each_device(net: nn.Module, device: torch.device) -> None:
    net, x = net.to(device), points(4, 1).detach().to(device)
    residuals = {"pde": net(x) - torch.zeros(4, device=device), "bc": net(x[[0, 1, 0]])}
    kernel = empirical_ntk(residuals, net)
    assert definiteness(kernel, "pde", residuals["pde"]).broadcast == {"pde": (4, 4)}
    copies = definiteness(kernel, "bc", residuals["bc"].detach().cpu())
    assert (copies.duplicates, copies.rank) == (((0, 2),), 2)
    assert copies.outside == pytest.approx(0.0, abs=1e-12)


SEEDS = st.integers(0, 10**6)


@settings(deadline=None, max_examples=50)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=14), seed=SEEDS)
def test_groups_are_those_of_equal_rows(labels: list[int], seed: int) -> None:
    J = gaussian(7, 20, seed=seed)[labels] * 10.0 ** (seed % 30 - 15)
    seen = found(J)
    groups = {label: [i for i, other in enumerate(labels) if other == label] for label in labels}
    expected = {tuple(group) for group in groups.values() if len(group) > 1}
    assert set(seen.duplicates) == expected
    assert seen.distinct == seen.rank == len(set(labels))
    assert seen.must_decrease == (not expected)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(3, 20), m=st.integers(3, 20), kind=st.sampled_from("abc"), seed=SEEDS)
def test_sums_of_a_column_and_a_row_are_seen(n: int, m: int, kind: str, seed: int) -> None:
    column, row = gaussian(n, 1, 50, seed=seed), gaussian(1, m, 50, seed=seed + 1)
    parts = {"a": column + 0 * row, "b": 0 * column + row, "c": column + row}
    J = parts[kind].reshape(n * m, 50)
    jacobian = explicit(pde=J).jacobian("pde")
    expected = ((n, m), kind != "c")
    assert additive_form(jacobian, (n, m)) == additive_form(jacobian, (n, 1, m)) == expected
    assert additive_form(jacobian) == (expected if n == m else None)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(3, 20), seed=SEEDS)
def test_one_entry_that_differs_is_enough(n: int, seed: int) -> None:
    J = (gaussian(n, 1, 50, seed=seed) + 0 * gaussian(1, n, 50, seed=seed)).reshape(n * n, 50)
    J[0] += 1e-4 * gaussian(50, seed=seed + 2)
    assert additive_form(explicit(pde=J).jacobian("pde")) is None


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, rows=st.integers(1, 12), rank=st.integers(1, 12))
def test_rank_is_that_of_the_jacobian(seed: int, rows: int, rank: int) -> None:
    J = gaussian(rows, rank, seed=seed) @ gaussian(rank, 30, seed=seed + 1)
    seen = found(J, gaussian(rows, seed=seed + 2))
    assert seen.rank == min(rows, rank)
    assert seen.must_decrease == (rank >= rows)
    assert -1e-12 <= seen.outside <= 1 + 1e-12
    assert (seen.outside < 1e-12) == seen.must_decrease


def test_first_alike_by_hand() -> None:
    J = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    K = J @ J.mT
    assert first_alike(K, 1e-12).tolist() == [0, 1, 0, 1, 4]
    assert duplicated_rows(K, 1e-12) == ((0, 2), (1, 3))
    assert duplicated_rows(K, 1e-12, still={0}) == ((1, 3),)


def test_rounding_follows_the_coarser_dtype() -> None:
    for dtype, expected in ((torch.float64, 2.0**-44), (torch.float32, 2.0**-36)):
        assert rounding(explicit(pde=torch.ones(2, 2, dtype=dtype)).jacobian("pde")) == expected


TWO = explicit(pde=torch.ones(2, 2), bc=torch.ones(3, 2))
ROWS = r"'pde' has shape \(4,\), 4 rows; its kernel has 2\. Likely it is of other points"
WRONG: list[tuple[str | None, object, type[Exception], str]] = [
    ("ic", None, KeyError, r"no term 'ic' in this kernel"),
    ("pde", torch.ones(4), ValueError, ROWS),
    (None, {"pde": torch.ones(2)}, ValueError, r"no residual for \['bc'\]"),
    (None, torch.ones(2), ValueError, r"no residual for \['p"),
]


@pytest.mark.parametrize(("term", "residual", "error", "message"), WRONG)
def test_errors_name_the_cause(term: str | None, residual, error, message: str) -> None:
    with pytest.raises(error, match=message):
        definiteness(TWO, term, residual)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_statements_are_short(rows: int) -> None:
    for J in (torch.eye(rows), torch.ones(rows, 3), torch.zeros(rows, 3)):
        said = found(J, torch.ones(rows)).statement
        assert 1 <= len(re.findall(r"[.?](?=\s|$)", said)) <= 3
        assert said == " ".join(said.split())
