"""The certificate finds what is wrong, and what it finds is mended, said once, and right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk import NTK, NTKWarning, empirical_ntk, find_terms
from pinn_ntk.graph.jacobian import certificate, cost, decode, rules, sites
from pinn_ntk.graph.jacobian.certificate import LOW_PRECISION_TOLERANCE, TOLERANCE, Probe, tolerance
from pinn_ntk.graph.jacobian.site_rule import SiteRule
from pinn_ntk.graph.reference import reference_jacobian
from pinn_ntk.graph.terms.completeness import completeness_error
from pinn_ntk.graph.walk import Edge, Graph, Use
from pinn_ntk.kernel.factors import Dense, Outer
from tests.asserts import assert_certified, assert_near
from tests.networks import NETWORKS, LayerNormByHand, stack
from tests.operators import grad, laplacian, points, wave

pytestmark = pytest.mark.usefixtures("float64")

N = 6


def measured(residual: Tensor, net: nn.Module, match: str) -> tuple[NTK, str]:
    """The kernel, right although it took a fallback, and what was said, once."""
    with pytest.warns(NTKWarning, match=match) as said:
        kernel = empirical_ntk({"pde": residual}, net)
    assert len(said) == 1
    assert said[0].filename == __file__, "the warning points into the package"
    expected = reference_jacobian(residual, net)
    assert_near(kernel.jacobian("pde").dense(), expected, 1e-11, "J after the fallback")
    assert_certified(kernel)
    return kernel, str(said[0].message)


def spoil_rule(monkeypatch: pytest.MonkeyPatch, kind: str, spoil: Callable) -> None:
    """Let all contributions by this rule be spoilt."""
    maker = rules._RULES[kind]

    def make(node: Node, position: int, shape: torch.Size) -> list[SiteRule]:
        made = maker(node, position, shape)
        listed = made if isinstance(made, list) else [made]
        return [SiteRule(r.arrange, lambda g, r=r: spoil(r.contribute(g))) for r in listed if r]

    monkeypatch.setitem(rules._RULES, kind, make)


def scaled(factor: Outer | Dense, by: float = 1 + 1e-6) -> Outer | Dense:
    if isinstance(factor, Dense):
        return Dense(factor.gradients * by)
    return Outer(tuple(x * by for x in factor.left), factor.right)


def shifted(factor: Outer | Dense) -> Outer | Dense:
    """Rows given to the next row: the sum over all rows stays the same."""
    if isinstance(factor, Dense):
        return Dense(factor.gradients.roll(1, 0))
    return Outer(*(tuple(x.roll(1, 0) for x in side) for side in (factor.left, factor.right)))


SPOIL = [scaled, partial(scaled, by=-1.0), shifted, partial(scaled, by=0.0)]
each_way = pytest.mark.parametrize("spoil", SPOIL, ids=["scaled", "negated", "shifted", "dropped"])


@each_way
@pytest.mark.parametrize("kind", ["MmBackward0", "AddmmBackward0"])
@pytest.mark.parametrize("width", [5, 20], ids=["plain", "sketched"])
def test_a_wrong_rule_is_mended(
    kind: str, spoil: Callable, width: int, monkeypatch: pytest.MonkeyPatch
):
    net, x = stack([1, width, width, 1]), points(N, 1)
    residual = grad(net(x), x) + net(x)
    spoil_rule(monkeypatch, kind, spoil)
    said = r"term 'pde': the certificate is off by more than 1e-10 \("
    kernel, message = measured(residual, net, said)
    found = kernel.jacobian("pde").fallbacks
    assert set(found) >= {"0.weight", "2.weight", "4.weight"}
    for reason in found.values():
        assert reason.startswith("the certificate is off by")
    assert all(name in message for name in list(found)[:3])
    trained = sum(net.get_parameter(name).numel() for name in found)
    cost = f"{N} vector-Jacobian products, less than a second at most"
    cost = f"{cost}, {N * trained * 8 / 2**20:.1f} MiB"
    assert f"Its exact rows are computed one by one instead: {cost}. To avoid it: " in message


@each_way
def test_only_what_is_wrong_is_computed_again(spoil: Callable, monkeypatch: pytest.MonkeyPatch):
    net = nn.Sequential(nn.Linear(1, 5), LayerNormByHand(5), nn.Tanh(), nn.Linear(5, 1))
    residual = net(points(N, 1))
    spoil_rule(monkeypatch, "MulBackward0", spoil)
    kernel, message = measured(residual, net, r"\(parameter 1.gain\)")
    assert list(kernel.jacobian("pde").fallbacks) == ["1.gain"]
    assert isinstance(kernel.jacobian("pde").factors["0.weight"], Outer)
    assert "0.weight" not in message


def test_a_parameter_of_little_weight_is_checked_too(monkeypatch: pytest.MonkeyPatch):
    """The gain enters with 1e-6 of the whole gradient, and is off by one in a thousand."""
    net, gain = nn.Linear(1, 1), nn.Parameter(torch.ones(1))
    net.register_parameter("gain", gain)
    x = points(N, 1)
    residual = net(x) + 1e-6 * gain * x.sin()
    spoil_rule(monkeypatch, "MulBackward0", lambda f: scaled(f, 1.001))
    kernel, _ = measured(residual, net, r"\(parameter gain\)")
    assert list(kernel.jacobian("pde").fallbacks) == ["gain"]


def test_without_the_certificate_nothing_is_checked(monkeypatch: pytest.MonkeyPatch):
    net = NETWORKS["mlp"](1, 1)
    residual = net(points(N, 1))
    spoil_rule(monkeypatch, "AddmmBackward0", lambda f: scaled(f, -1.0))
    kernel = empirical_ntk(residual, net, certify=False)
    assert kernel.certificate == {}
    assert kernel.jacobian("residual").fallbacks == {}
    assert_near(kernel.jacobian("residual").dense(), -reference_jacobian(residual, net), 1e-13, "J")


def everything_is_aligned(graph: Graph, _rows: int) -> list[tuple[Use, Edge]]:
    """A broken proof: each use of a leaf meets the points in order."""
    return [(use, edge) for edge in map(Edge, graph.names) for use in graph.uses[edge]]


@pytest.mark.parametrize("mix", ["batch_norm", "running_sum", "attention"])
def test_a_wrong_proof_is_mended(mix: str, monkeypatch: pytest.MonkeyPatch):
    normed = nn.Sequential(nn.Linear(1, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    net = normed if mix == "batch_norm" else NETWORKS["mlp"](1, 1)
    u = net(points(N, 1))
    made = {"batch_norm": u, "running_sum": u.cumsum(0), "attention": (u @ u.T).softmax(1) @ u}
    monkeypatch.setattr(sites, "aligned_uses", everything_is_aligned)
    measured(made[mix], net, "the certificate is off by")


def test_a_missed_use_is_mended(monkeypatch: pytest.MonkeyPatch):
    """A weight takes part in the value and in the sweep back; one of the two is forgotten."""
    net, x = NETWORKS["mlp"](1, 1), points(N, 1)
    residual = grad(net(x), x)
    aligned = sites.aligned_uses
    monkeypatch.setattr(sites, "aligned_uses", lambda graph, rows: aligned(graph, rows)[1:])
    kernel, _ = measured(residual, net, "the certificate is off by")
    assert len(kernel.jacobian("pde").fallbacks) == 1


def test_wrong_owners_and_factors_that_are_not_finite_are_mended(monkeypatch: pytest.MonkeyPatch):
    net = NETWORKS["mlp"](1, 1)
    residual = net(points(N + 1, 1))[1:]
    owners = decode.RowCode.owners
    monkeypatch.setattr(decode.RowCode, "owners", lambda *args: owners(*args).flip(0))
    measured(residual, net, "the certificate is off by")
    monkeypatch.undo()
    spoil_rule(monkeypatch, "AddmmBackward0", lambda f: scaled(f, float("nan")))
    measured(net(points(N, 1)), net, "the certificate is off by nan")


def test_a_hook_that_mixes_rows_is_mended():
    """No graph shows it: only the certificate can."""
    net = NETWORKS["mlp"](1, 1)
    hidden = net[0](points(N, 1))
    hidden.register_hook(lambda gradient: gradient - gradient.mean(0))
    kernel, _ = measured(net[1:](hidden), net, "the certificate is off by")
    assert set(kernel.jacobian("pde").fallbacks) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("network", "match"),
    [
        ("batch_norm", "points interact"),
        ("conv_transposed", "no rule for a parameter at input 1 of Convolution"),
    ],
)
def test_networks_beyond_the_fast_path(network: str, match: str):
    net, x = NETWORKS[network](2, 1), points(N, 2)
    kernel, message = measured(grad(net(x), x), net, match)
    found = set(kernel.jacobian("pde").fallbacks)
    assert len(found) > 4 if network == "batch_norm" else found == {"conv.weight", "conv.bias"}
    assert sum(name in message for name in found) == min(3, len(found))
    assert ("more)" in message) == (len(found) > 3)


def test_reasons_are_grouped_and_parameters_in_order():
    listed = cost.listed({"a": "one", "b": "other", "c": "one"})
    assert listed == "one (parameter a, c); other (parameter b)"
    net = nn.Sequential(
        nn.Linear(1, 4), nn.ParameterList([torch.ones(4)]), nn.ConvTranspose1d(1, 1, 2, bias=False)
    )
    h = net[0](points(N, 1)).sigmoid() ** net[1][0]
    _, message = measured(net[2](h[:, None])[:, 0, 0], net, "no rule")
    assert "(parameter 1.0)" in message
    assert message.count("no rule for a parameter") == 2


def test_each_term_speaks_for_itself():
    net = NETWORKS["batch_norm"](1, 1)
    u, v, w = (net(points(rows, 1)) for rows in (N, 4, 3))
    residuals = {"pde": u, "bc": v * 2, "one": w[:1]}
    with pytest.warns(NTKWarning) as said:
        empirical_ntk(residuals, net)
    assert [str(w.message).split(":")[0] for w in said] == ["term 'pde'", "term 'bc'"]


@pytest.mark.filterwarnings("error", "ignore::pinn_ntk.NTKWarning")
def test_the_warning_can_be_filtered_alone():
    net = NETWORKS["batch_norm"](1, 1)
    empirical_ntk(net(points(N, 1)), net)


def column(*values: float) -> Tensor:
    return torch.tensor(values)


def test_error_by_hand_and_without_a_gradient():
    """<(3, 4), (6, 8)> = 50 against <(3, 4), (6, 9)> = 54, over 5 * 10."""
    a = Probe({"w": column(3.0, 4.0)}, {"w": column(3.0, 4.0)})
    b = Probe({"w": column(6.0), "v": column(8.0)}, {"w": column(6.0), "v": column(9.0)})
    c = Probe({"w": column(6.0, 8.0)}, {"w": column(6.0, 9.0)})
    assert a.error(a) == 0.0
    assert a.error(c) == c.error(a) == pytest.approx(4 / 50)
    assert c.error(c) == pytest.approx(17 / 100)
    assert b.error(b) == pytest.approx(17 / 100)
    nothing, something = Probe({}, {}), Probe({}, {"w": column(1.0)})
    assert nothing.error(nothing) == 0.0
    assert something.error(something) == float("inf")


def test_errors_of_all_pairs_are_those_of_each():
    probes = {
        "a": Probe({"w": column(3.0, 4.0)}, {"w": column(3.0, 4.0)}),
        "b": Probe({"w": column(6.0, 1.0), "v": column(8.0)}, {"w": column(6.0, 1.1)}),
        "nothing": Probe({}, {}),
        "something": Probe({}, {"w": column(1.0, 0.0)}),
    }
    found = certificate.errors(probes)
    for a, first in probes.items():
        for b, second in probes.items():
            assert found[a, b] == pytest.approx(first.error(second)), (a, b)


def test_failures_by_hand():
    exact = {"w": column(3.0, 4.0), "small": column(1e-6), "lost": column(1.0), "same": column(2.0)}
    factored = exact | {"w": column(3.0, 5.0), "small": column(2e-6), "extra": column(1e-3)}
    del factored["lost"]
    whole = 1e-3 * (25 + 1e-12 + 1 + 4) ** 0.5
    errors = {"w": 1 / (5 + whole), "small": 1e-6 / (1e-6 + whole), "lost": 1 / (1 + whole)}
    errors["extra"] = 1e-3 / whole
    assert Probe(exact, factored).failed(1e-9) == pytest.approx(errors)
    assert list(Probe(exact, factored).failed(0.19)) == ["w", "lost"]
    assert list(Probe({"w": column(1.0)}, {"w": column(float("nan"))}).failed(1e-9)) == ["w"]
    assert Probe({"w": column(0.0)}, {}).failed(1e-9) == {}
    # Of four terms of size 1, all but 0.1 has cancelled: an error of 0.1 is 5 %, not 100 %.
    probe = Probe({"w": column(0.1)}, {"w": column(0.2)}, {"w": 2.0})
    assert probe.failed(1e-9) == pytest.approx({"w": 0.1 / (2.0 + 1e-3 * 0.1)})
    larger = Probe({"w": column(3.0)}, {"w": column(0.0)}, {"w": 2.0})
    assert larger.failed(1e-9) == pytest.approx({"w": 3.0 / 3.003})


def test_every_pair_of_terms_is_certified():
    net, x = NETWORKS["mlp"](1, 1), points(N, 1)
    kernel = empirical_ntk({"pde": laplacian(net(x), x), "bc": net(points(3, 1))}, net)
    assert_certified(kernel, tol=1e-13)
    assert set(kernel.certificate) == {(a, b) for a in ("pde", "bc") for b in ("pde", "bc")}


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [*TOLERANCE.items(), (torch.bfloat16, LOW_PRECISION_TOLERANCE), (torch.float16, 1e-2)],
)
def test_tolerance_by_dtype(dtype: torch.dtype, expected: float):
    assert tolerance(dtype) == expected


def test_magnitudes_by_hand():
    """Two sites that cancel, and rows written out, against the probe vector itself."""
    residual = torch.zeros(3, dtype=torch.float64)
    v = certificate._probe_vector(residual)
    left, right = torch.randn(3, 4).double(), torch.randn(3, 5).double()
    factors = {"w": Outer((left, -left), (right, right)), "b": Dense(left)}
    leaves = {"w": torch.zeros(4, 5), "b": torch.zeros(4)}
    sizes = [left[i].square().sum() * right[i].square().sum() for i in range(3)]
    expected = sum(2 * v[i] ** 2 * sizes[i] for i in range(3)) ** 0.5
    found = certificate.magnitudes(residual, leaves, factors)
    assert found["w"] == pytest.approx(float(expected))
    assert found["b"] == pytest.approx(float((v[:, None] * left).norm()))


def test_magnitudes_of_a_sketched_weight_are_those_of_its_sketch():
    """Over many weights the sketched gradient is as large as its magnitude says."""
    ratios = []
    for _ in range(50):
        left, right = torch.randn(40, 30).double(), torch.randn(40, 30).double()
        leaves, factors = {"w": torch.zeros(30, 30)}, {"w": Outer((left,), (right,))}
        residual = torch.zeros(40, dtype=torch.float64)
        exact = certificate.factored_probe(residual, leaves, factors)["w"].norm()
        ratios.append(float(exact) / certificate.magnitudes(residual, leaves, factors)["w"])
    assert sum(ratios) / len(ratios) == pytest.approx(1.0, abs=0.05)


def sliced(net: nn.Module, x: Tensor) -> Tensor:
    u = net(torch.cat([x, x[:3]]))
    return u[: len(x)] * grad(u, x)[:, :1]


def single(sizes: list[int], rows: int) -> tuple[nn.Module, Tensor]:
    """A float32 network and points in the plane."""
    return stack(sizes).float(), points(rows, 2).float().detach().requires_grad_()


HALF = {"wave": wave, "sliced": sliced, "plain": lambda net, x: net(x)}  # wave: sites that cancel
in_half_precision = pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)


@in_half_precision
@pytest.mark.parametrize("residual", HALF.values(), ids=HALF)
@pytest.mark.parametrize("rows", [31, 100])
def test_rounding_of_half_precision_is_no_failure(residual: Callable, low: torch.dtype, rows: int):
    net, x = single([2, 20, 20, 20, 1], rows)
    with torch.autocast("cpu", low):  # a warning would be an error
        kernel = empirical_ntk(residual(net, x), net)
    true = empirical_ntk(residual(net, x), net)
    assert kernel.jacobian("residual").fallbacks == {}
    assert kernel.trace("residual") == pytest.approx(true.trace("residual"), rel=0.05)


def test_a_row_sum_that_cancels_is_no_failure_in_half_precision():
    """The rows of the bias are all alike, and the probe adds up to next to nothing."""
    net = stack([1, 8, 8, 1]).float()
    sums = [float(certificate._probe_vector(torch.zeros(n)).sum()) / n**0.5 for n in range(2, 400)]
    rows = 2 + min(range(len(sums)), key=lambda i: abs(sums[i]))
    with torch.autocast("cpu", torch.bfloat16):
        empirical_ntk(net(points(rows, 1).float()), net)  # a warning would be an error


@in_half_precision
@pytest.mark.parametrize("share", [0.3, -0.3, -1.0], ids=str)
def test_a_use_that_was_missed_still_shows_in_half_precision(
    share: float, low: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    net, x = single([2, 20, 20, 1], 60)
    with torch.autocast("cpu", low):
        residual = wave(net, x)
        spoil_rule(monkeypatch, "MmBackward0", lambda f: scaled(f, 1 + share))
        with pytest.warns(NTKWarning, match=r"the certificate is off by more than \de-0\d"):
            kernel = empirical_ntk(residual, net)
    assert "2.weight" in kernel.jacobian("residual").fallbacks


@pytest.mark.parametrize("scale", [1.0, 2.0**16, 2.0**-16], ids=str)
def test_terms_of_a_scaled_loss_are_complete_in_float16(scale: float):
    """A GradScaler starts from 2^16; the gradient of such a loss leaves the range of float16."""
    net, x = single([2, 20, 20, 1], 100)
    with torch.autocast("cpu", torch.float16):
        residuals = [net(x) - 1, 3 * wave(net, x)]
    parts = [scale * r.float().square().sum() for r in residuals]
    terms = find_terms(sum(parts), names=["u", "pde"])  # checks that they are complete
    assert completeness_error(sum(parts), terms) < 0.02
    assert completeness_error(sum(parts), [terms["u"]]) > 0.1
    assert completeness_error(sum(parts), [terms["pde"]]) > 0.1
    (gradient,) = torch.autograd.grad(sum(parts), [net[2].weight])
    assert bool(gradient.isfinite().all()) == (scale <= 1.0)


def test_autocast_around_the_call_changes_nothing():
    net, x = single([2, 20, 20, 1], 30)
    residual = wave(net, x)
    plain = empirical_ntk(residual, net)
    with torch.autocast("cpu", torch.bfloat16):
        inside = empirical_ntk(residual, net)
    assert torch.equal(inside["residual"], plain["residual"])
    assert inside.certificate == plain.certificate


def test_a_failure_that_repeats_is_said_in_the_same_words():
    net, x, said = stack([1, 5, 1]), points(N, 1), set()
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            net[0].weight.normal_()
        with pytest.warns(NTKWarning) as caught:
            empirical_ntk(net(x).cumsum(0), net)
        said |= {str(w.message) for w in caught}
    assert len(said) == 1


@pytest.mark.parametrize("shape", [(17, 17), (40, 20)], ids=str)
@pytest.mark.parametrize("entry", [0, -1])
def test_a_sketch_sees_each_entry(shape: tuple[int, int], entry: int):
    """One wrong entry of a gradient is still wrong after the sketch along the columns."""
    leaf, gradient = torch.zeros(shape), torch.randn(shape)
    assert certificate._sketch(leaf) is not None
    wrong = gradient.clone()
    wrong.view(-1)[entry] += 1e-6
    error = certificate._sketched(wrong, leaf) - certificate._sketched(gradient, leaf)
    assert float(error.norm()) > 1e-7
    assert len(error) < gradient.numel()
