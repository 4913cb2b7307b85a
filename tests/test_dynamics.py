"""Linearised training in closed form: against matrix exponentials, iteration, and torch's SGD."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pinn_ntk import NTK, LinearizedTraining, curvature, empirical_ntk, find_terms
from pinn_ntk.analysis import propagators
from pinn_ntk.analysis.mode_basis import ModeBasis
from tests.asserts import assert_all_near, assert_near
from tests.networks import stack
from tests.operators import laplacian

pytestmark = pytest.mark.usefixtures("float64")

WEIGHTS = {"pde": 1.0, "bc": 30.0}
ROWS = {"pde": 7, "bc": 3, "unseen": 4}
P = 25


class Linear:
    """Terms that are linear in w: r_a = Phi_a w - y_a, beside their exact kernel."""

    def __init__(self, rows: Mapping[str, int] = ROWS, parameters: int = P):
        self.features = {t: torch.randn(n, parameters) for t, n in rows.items()}
        self.targets = {t: torch.randn(n) for t, n in rows.items()}
        self.w = torch.randn(parameters, requires_grad=True)

    def together(self) -> tuple[Tensor, Tensor]:
        """Features and residuals of all rows."""
        return torch.cat(list(self.features.values())), torch.cat(list(self.start().values()))

    def residuals(self) -> dict[str, Tensor]:
        return {t: phi @ self.w - self.targets[t] for t, phi in self.features.items()}

    def start(self) -> dict[str, Tensor]:
        return {t: r.detach() for t, r in self.residuals().items()}

    def kernel(self) -> NTK:
        return empirical_ntk(self.residuals(), [self.w])

    def train(self, weights: Mapping[str, float], steps: int, **options: float) -> None:
        optimizer = torch.optim.SGD([self.w], **options)
        for _ in range(steps):
            r = self.residuals()
            optimizer.zero_grad()
            sum(w * r[t].square().mean() for t, w in weights.items()).backward()
            optimizer.step()

    def training(self, weights: Mapping[str, float] = WEIGHTS, **options) -> LinearizedTraining:
        d = {t: 2 * w / len(self.targets[t]) for t, w in weights.items()}
        return LinearizedTraining(self.kernel(), self.start(), d, **options)


@pytest.fixture
def model() -> Linear:
    return Linear()


@pytest.fixture
def training(model: Linear) -> LinearizedTraining:
    return model.training()


@pytest.mark.parametrize("t", [0.0, 1e-3, 0.1, 3.0])
def test_flow_is_the_matrix_exponential(model: Linear, t: float, method: str):
    phi, r = model.together()
    d = torch.tensor([2 / 7] * 7 + [20.0] * 3 + [0.0] * 4)
    # D = 0 moves the unseen rows by the others alone.
    expected = torch.linalg.matrix_exp(-t * phi @ phi.mT * d) @ r
    found = model.training(method=method).flow(t)
    expected = dict(zip(ROWS, expected.split([7, 3, 4]), strict=True))
    assert_all_near(found, expected, 1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 50, 400])
def test_descent_is_that_of_torch(model: Linear, steps: int, momentum: float, method: str):
    training = model.training(method=method)
    lr = 0.4 * training.max_stable_lr(momentum)
    model.train(WEIGHTS, steps, lr=lr, momentum=momentum)
    found, end = training.descent(steps, lr, momentum), model.start()
    for term, start in training.flow(0.0).items():
        assert_near(found[term], end[term], 1e-10, term, start.norm())


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("share", [0.99, 1.3])
def test_descent_is_exact_where_it_diverges(model: Linear, share: float, momentum: float):
    training = model.training()
    lr = share * training.max_stable_lr(momentum)
    model.train(WEIGHTS, 40, lr=lr, momentum=momentum)
    grown = training.descent(40, lr, momentum)
    assert_all_near(grown, model.residuals(), 1e-9)
    grows = float(grown["bc"].norm()) > 10 * float(training.flow(0.0)["bc"].norm())
    assert grows == (share > 1)


def test_weights_come_from_the_loss():
    model = Linear({"pde": 7, "bc": 3})
    residuals = model.residuals()
    loss = 5 * residuals["pde"].square().mean() + (residuals["bc"] * 2).square().sum()
    terms = find_terms(loss, names=["pde", "bc"])
    scaled = {"pde": residuals["pde"], "bc": terms["bc"].residual}
    training = LinearizedTraining(empirical_ntk(scaled, [model.w]), scaled, curvature(terms))
    model.train({"pde": 5.0, "bc": 12.0}, 20, lr=1e-3)  # 4 of the sum over 3 rows
    factor = float((scaled["bc"] / residuals["bc"]).detach().mean())  # r or 2 r, as found
    end = model.residuals()
    assert_all_near(training.descent(20, 1e-3), {"pde": end["pde"], "bc": factor * end["bc"]})


def test_several_times_are_stacked(training: LinearizedTraining):
    times = torch.tensor([[0.0, 0.1], [2.0, math.inf]])
    many = training.flow(times)
    steps = torch.tensor([0, 3, 9])
    counted = {mu: training.descent(steps, 0.01, mu) for mu in (0.0, 0.9)}
    for term, n in ROWS.items():
        assert many[term].shape == (2, 2, n)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            assert_near(many[term][i, j], training.flow(float(times[i, j]))[term], 1e-13, term, 1)
        for mu, found in counted.items():
            single = torch.stack([training.descent(n, 0.01, mu)[term] for n in (0, 3, 9)])
            assert_near(found[term], single, 1e-13, term)


def test_start_is_the_start_and_stays_without_weight(model: Linear, training: LinearizedTraining):
    for found in (training.flow(0.0), training.descent(0, 0.1), training.descent(0, 0.1, 0.9)):
        assert_all_near(found, model.start(), 1e-13)
    still = LinearizedTraining(model.kernel(), model.start(), {"pde": 0.0, "bc": 0.0})
    assert still.max_stable_lr() == math.inf
    for found in (still.flow(7.0), still.descent(5, 0.1, 0.9), still.limit()):
        assert_all_near(found, model.start(), 1e-15)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 2.0])
def test_limit_is_ridge_regression_in_the_parameters(ridge: float):
    model = Linear({"pde": 12, "bc": 3, "unseen": 4}, parameters=9)  # more rows than parameters
    training = model.training()
    root = {t: math.sqrt(2 * w / len(model.targets[t])) for t, w in WEIGHTS.items()}
    start = model.start()
    a = [root[t] * model.features[t] for t in WEIGHTS] + [math.sqrt(ridge) * torch.eye(9)]
    b = [root[t] * start[t] for t in WEIGHTS] + [torch.zeros(9)]
    move = torch.linalg.lstsq(torch.cat(a), -torch.cat(b)).solution
    expected = {t: r + model.features[t] @ move for t, r in start.items()}
    assert_all_near(training.limit(ridge), expected)
    if ridge == 0:
        assert_all_near(training.flow(math.inf), training.limit(), 1e-13)


def test_flow_goes_to_the_limit(training: LinearizedTraining):
    slowest = float(training.rates[training.rates > 0].min())
    assert_near(training.flow(40 / slowest)["unseen"], training.limit()["unseen"], 1e-12, "unseen")
    assert float(training.limit()["pde"].norm()) < 1e-12


def test_small_steps_of_descent_are_the_flow(training: LinearizedTraining):
    ends = [training.descent(n, 0.2 / n)["unseen"] for n in (1000, 2000, 4000)]
    errors = [float((end - training.flow(0.2)["unseen"]).norm()) for end in ends]
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2, 2], rel=0.01)


def test_term_without_residual_starts_from_zero(model: Linear):
    training, start = model.training(), model.start()
    with_start, own = training.flow(0.3)["unseen"], start.pop("unseen")
    d = {t: training.weights(t) for t in WEIGHTS}
    change = LinearizedTraining(model.kernel(), start, d).flow(0.3)["unseen"]
    assert_near(change, with_start - own, 1e-13, "change", with_start.norm())


def test_terms_choose_what_is_trained(model: Linear):
    training = model.training(terms=["bc"])
    assert (training.terms, training.unseen) == (("bc",), ("pde", "unseen"))
    lr = 0.01 * training.max_stable_lr()
    model.train({"bc": WEIGHTS["bc"]}, 30, lr=lr)
    assert_all_near(training.descent(30, lr), model.residuals())


@pytest.mark.parametrize("order", [["pde", "bc"], ["bc", "pde"]])
def test_order_of_terms_is_that_of_the_kernel(model: Linear, order: list[str]):
    found = model.training(terms=order).flow(1.0)
    assert list(found) == ["pde", "bc", "unseen"]
    assert_all_near(found, model.training(terms=["pde", "bc"]).flow(1.0))


@pytest.mark.parametrize("tiny", [0.0, 1e-300, 1e-40, 1e-18, 1e-10])
def test_rows_of_hardly_any_weight_are_predicted(tiny: float, method: str):
    model, masked = Linear(), torch.tensor([1.0, tiny, 1.0, tiny, 1.0, 1.0, 1.0])
    curvatures = {"pde": masked, "bc": tiny}
    training = LinearizedTraining(model.kernel(), model.start(), curvatures, method=method)
    phi, r = model.together()
    d = torch.cat([masked, torch.full((3,), tiny), torch.zeros(4)])
    for t in (0.01, 1.0, 30.0):
        expected = torch.linalg.matrix_exp(-t * phi @ phi.mT * d) @ r
        found = torch.cat(list(training.flow(t).values()))
        assert_near(found, expected, 1e-9, f"t = {t}")


def test_duplicated_points_stay_apart_only_in_what_they_differ():
    model = Linear({"pde": 5, "unseen": 2})
    for values in (model.features["pde"], model.targets["pde"]):
        values[3:] = values[:2]
    model.targets["pde"][3] += 1.0  # two values at one point
    training = model.training({"pde": 1.0})
    assert int((training.rates > 0).sum()) == 3
    end = training.limit()["pde"]
    expected = torch.tensor([0.5, 0.0, 0.0, -0.5, 0.0])  # the mean of both can be fitted
    assert_near(end, expected, 1e-12, "limit")
    assert_near(training.flow(1e30)["pde"], end, 1e-12, "flow")
    move = torch.linalg.pinv(model.features["pde"]) @ (end - model.start()["pde"])
    unseen = model.start()["unseen"] + model.features["unseen"] @ move
    assert_near(training.limit()["unseen"], unseen, 1e-11, "unseen")


def stiff(decades: float, size: int = 12) -> Linear:
    """Singular values from 1 down to 10^(-decades/2), so the kernel has condition 10^decades."""
    model = Linear({"pde": size, "unseen": 3}, parameters=size)
    left, _ = torch.linalg.qr(model.features["pde"])
    values = torch.logspace(0, -decades / 2, size)
    model.features["pde"] = left * values
    model.features["unseen"] *= values
    return model


def in_parameters(model: Linear, t: float) -> dict[str, Tensor]:
    """The flow for D = 1 by the singular values of J, which keeps all decades."""
    u, sigma, vt = torch.linalg.svd(model.features["pde"], full_matrices=False)
    start = model.start()
    move = vt.mT @ (torch.expm1(-t * sigma**2) / sigma * (u.mT @ start["pde"]))
    return {term: start[term] + phi @ move for term, phi in model.features.items()}


@pytest.mark.parametrize("t", [1e-2, 1e2, 1e6, 1e10])
def test_stiff_kernels_before_the_floor_is_reached(t: float):
    model = stiff(16)
    found = model.training({"pde": 6.0}).flow(t)  # D = 1
    expected = in_parameters(model, t)
    noise = max(1e-11, 100 * t * torch.finfo(torch.float64).eps)  # that of forming the kernel
    for term, start in model.start().items():
        assert_near(found[term], expected[term], noise, term, start.norm())


@pytest.mark.parametrize("t", [1e-2, 1e6, 1e10, 1e13, 1e16, 1e20])
def test_stiff_kernels_from_their_jacobian(t: float):
    model = stiff(16)
    found = model.training({"pde": 6.0}, method="accurate").flow(t)
    expected = in_parameters(model, t)
    assert_near(found["pde"], expected["pde"], 1e-6, "pde", model.start()["pde"].norm())
    assert_near(found["unseen"], expected["unseen"], 1e-6, "unseen")


@pytest.mark.parametrize("t", [1e12, 1e16, 1e40, math.inf])
def test_noise_below_the_floor_never_grows(t: float):
    training = stiff(30).training({"pde": 6.0})
    assert float(training.rates.min()) == 0.0
    start, found = training.flow(0.0), training.flow(t)
    assert float(found["pde"].norm()) <= float(start["pde"].norm())
    assert float(found["unseen"].norm()) < 1e8  # 1 / sigma of the smallest that is resolved


@pytest.mark.parametrize("parameters", [4, P])
def test_basis_holds_the_cross_kernel_to_each_mode(method: str, parameters: int):
    model = Linear(parameters=parameters)
    root = torch.cat([torch.full((3,), 2.0), torch.full((7,), 0.5)]).double()
    basis = ModeBasis.of(model.kernel(), ["bc", "pde"], root, method)
    v = basis.spectrum.eigenvectors
    trained = torch.cat([model.features["bc"], model.features["pde"]])
    s = root[:, None] * (trained @ trained.mT) * root
    assert_near(v @ torch.diag(basis.spectrum.eigenvalues) @ v.mT, s, 1e-13, "S")
    for term, phi in model.features.items():
        expected = phi @ trained.mT @ (root[:, None] * v)
        assert_near(basis.followers[term] * basis.gains, expected, 1e-12, term)


def test_fewer_parameters_than_rows(method: str):
    model = Linear(parameters=4)
    training = model.training(method=method)
    assert int((training.rates > 0).sum()) == 4
    lr = 0.3 * training.max_stable_lr()
    model.train(WEIGHTS, 25, lr=lr)
    assert_all_near(training.descent(25, lr), model.residuals())


def test_vector_outputs_of_a_network_that_is_linear_in_what_is_trained():
    """Two outputs on frozen features: rows are point by point, and shapes do not matter."""
    body, head = torch.nn.Linear(1, 6), torch.nn.Linear(6, 2)
    x, y = torch.rand(5, 1), torch.rand(5, 2)
    hidden = torch.tanh(body(x)).detach()
    start = {"data": head(hidden) - y}
    training = LinearizedTraining(empirical_ntk(start, head), start, {"data": 0.2})
    optimizer = torch.optim.SGD(head.parameters(), lr=0.7, momentum=0.6)
    for _ in range(60):
        optimizer.zero_grad()
        (head(hidden) - y).square().mean().backward()
        optimizer.step()
    found = training.descent(60, 0.7, 0.6)["data"].reshape(5, 2)
    assert_near(found, (head(hidden) - y).detach(), 1e-10, "data")


@pytest.mark.parametrize("steps", [1, 7, 1000])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_propagators_against_iteration(steps: int, momentum: float):
    rates = torch.tensor([0.0, 1e-18, 1e-9, 0.3, 0.49, 0.51, 1.0, 1.7])
    distance = velocity = torch.zeros_like(rates)
    for _ in range(steps):
        velocity = momentum * velocity + 1 - rates * distance
        distance = distance + velocity
    found = propagators.descent(rates, steps, 1.0, momentum)
    torch.testing.assert_close(found.reach, distance, rtol=1e-11, atol=0)
    torch.testing.assert_close(found.kept, 1 - rates * distance, rtol=0, atol=1e-12)


def test_reach_below_the_floor_fades():
    rates, floor = torch.zeros(1), 1e-14
    times = torch.tensor([1e3, 1e14, 1e17, math.inf])
    reach = propagators.flow(rates, times, floor).reach.flatten().tolist()
    assert reach == pytest.approx([1e3, 1e14 / math.e, 0.0, 0.0], rel=1e-10)


def test_flow_goes_on_from_where_it_is(model: Linear):
    training = model.training(method="accurate")
    d = {t: training.weights(t) for t in WEIGHTS}
    onward = LinearizedTraining(model.kernel(), training.flow(0.1), d)
    assert_all_near(onward.flow(0.25), training.flow(0.35), 1e-11)
    lr = 0.3 * training.max_stable_lr()
    onward = LinearizedTraining(model.kernel(), training.descent(11, lr), d)
    assert_all_near(onward.descent(20, lr), training.descent(31, lr), 1e-11)


def test_training_is_linear_in_the_residuals(model: Linear):
    kernel, d = model.kernel(), {"pde": 0.3, "bc": 5.0}
    one, other = ({t: torch.randn(n).double() for t, n in ROWS.items()} for _ in range(2))
    both = {t: 2 * one[t] - other[t] for t in ROWS}
    ends = [LinearizedTraining(kernel, r, d).descent(9, 0.01, 0.5) for r in (one, other, both)]
    assert_all_near(ends[2], {t: 2 * ends[0][t] - ends[1][t] for t in ROWS}, 1e-11)


def test_loss_never_rises_below_the_stability_bound(training: LinearizedTraining):
    steps = torch.arange(60)
    for found in (training.flow(0.01 * steps), training.descent(steps, training.max_stable_lr())):
        loss = sum((training.weights(t) * found[t].square()).sum(-1) for t in WEIGHTS)
        assert float(loss.diff().max()) <= 1e-12 * float(loss[0])


def test_a_network_follows_for_small_steps():
    """u_xx of a tanh network: what one step is foretold wrongly falls as the step squared."""
    net = stack([1, 9, 1])
    x = torch.linspace(-1, 1, 6)[:, None].requires_grad_()

    def residuals() -> dict[str, Tensor]:
        u = net(x)
        return {"pde": laplacian(u, x) - 1, "bc": u[:1], "unseen": net(x.detach() + 0.1)}

    kernel, start = empirical_ntk(residuals(), net), copy.deepcopy(net.state_dict())
    training = LinearizedTraining(kernel, residuals(), {"pde": 2 / 6, "bc": 2.0})
    errors = []
    for lr in (1e-3, 1e-4):
        net.zero_grad()
        net.load_state_dict(start)
        now = residuals()
        (now["pde"].square().mean() + now["bc"].square().mean()).backward()
        torch.optim.SGD(net.parameters(), lr=lr).step()
        foretold = training.descent(1, lr)
        gaps = [foretold[t] - r.detach().flatten() for t, r in residuals().items()]
        errors.append(torch.stack([gap.norm() for gap in gaps]))
    assert (errors[0] / errors[1]).tolist() == pytest.approx([100] * 3, rel=0.05)


def test_results_lie_on_the_device_of_the_kernel(device: torch.device, method: str):
    w = torch.randn(6, device=device, requires_grad=True)
    phi = {t: torch.randn(n, 6, device=device) for t, n in ROWS.items()}
    residuals = {t: part @ w for t, part in phi.items()}
    d = {"pde": torch.tensor([1.0, 0.0] * 3 + [2.0]), "bc": 3.0}
    training = LinearizedTraining(empirical_ntk(residuals, [w]), residuals, d, method=method)
    d_all = torch.cat([d["pde"].double(), torch.full((3,), 3.0), torch.zeros(4)]).to(device)
    features = torch.cat(list(phi.values()))
    step = torch.eye(14, device=device) - 1e-3 * features @ features.mT * d_all
    expected = torch.linalg.matrix_power(step, 8) @ torch.cat(list(residuals.values())).detach()
    found = torch.cat(list(training.descent(8, 1e-3).values()))
    assert found.device.type == device.type
    assert_near(found, expected, 1e-11, "descent")
    assert training.descent(torch.arange(3), 1e-3, 0.9)["unseen"].device.type == device.type
    assert training.limit()["unseen"].device.type == device.type


HINT = r"\. .*pinn_ntk\.curvature\(find_terms\(loss\)\)"
UNFIT: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"residuals": {}}, ValueError, "trained but has no residual"),
    ({"terms": ["pde"], "curvature": {}}, ValueError, "trained but has no curvature"),
    ({"curvature": {}}, ValueError, "no term is trained"),
    ({"residuals": {"pde": torch.ones(4)}}, ValueError, "shape .4,.; expected 3 finite"),
    ({"residuals": {"pde": torch.tensor([1, math.nan, 1])}}, ValueError, "expected 3 finite"),
    ({"curvature": {"pde": torch.ones(2)}}, ValueError, "curvature of term 'pde' has shape .2,."),
    ({"curvature": {"pde": -1.0}}, ValueError, "is -1.0 at its lowest"),
    ({"curvature": {"pde": torch.tensor([1, -2, 1])}}, ValueError, rf"-2.0.*slopes.*{HINT}"),
    ({"curvature": None}, ValueError, "no constant curvature: the loss is not a sum of squares"),
    ({"curvature": {"pde": math.inf}}, ValueError, "expected 3 finite"),
    ({"curvature": torch.ones(3)}, TypeError, rf"got Tensor{HINT}"),
    ({"curvature": {"pde": None}}, TypeError, rf"got dict with NoneType{HINT}"),
    ({"curvature": {"pde": "2/N"}}, TypeError, rf"got dict with str{HINT}"),
    ({"curvature": {"pde": 1.0, "bc": 1.0}}, KeyError, "no term 'bc'"),
    ({"method": "exact"}, ValueError, "expected"),
]


@pytest.mark.parametrize(("changes", "error", "message"), UNFIT)
def test_what_does_not_fit_is_refused(changes: dict[str, object], error, message: str):
    given = {"residuals": {"pde": torch.ones(3)}, "curvature": {"pde": 1.0}} | changes
    with pytest.raises(error, match=message):
        LinearizedTraining(Linear({"pde": 3}).kernel(), **given)


def test_terms_and_the_curvature_of_other_losses_are_no_curvature():
    model = Linear({"pde": 3})
    residuals = model.residuals()
    squares = find_terms(residuals["pde"].square().mean(), names=["pde"])
    with pytest.raises(TypeError, match=r"with Term\. Curvatures come from pinn_ntk\.curvature"):
        LinearizedTraining(model.kernel(), residuals, squares)
    huber = torch.nn.functional.huber_loss(residuals["pde"], torch.zeros(3).double())
    with pytest.raises(ValueError, match=r"not a sum of squares .*Huber"):
        LinearizedTraining(model.kernel(), residuals, curvature(find_terms(huber, names=["pde"])))


def test_repr_says_the_rows(training: LinearizedTraining):
    shown = "LinearizedTraining(rows={'pde': 7, 'bc': 3}, unseen=('unseen',), method='fast')"
    assert repr(training) == shown


FLOWS = [("flow", -1.0), ("flow", math.nan), ("limit", -1.0)]
DESCENTS = [(-1, 0.1), (torch.tensor([1.5]), 0.1), (1, 0.0), (1, 0.1, 1.0)]


@pytest.mark.parametrize("call", FLOWS + [("descent", *values) for values in DESCENTS])
def test_values_out_of_range_are_refused(training: LinearizedTraining, call: tuple[str, ...]):
    name, *values = call
    with pytest.raises(ValueError, match="expected"):
        getattr(training, name)(*values)
