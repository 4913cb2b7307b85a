"""Balancing rules on single looks: against the kernel row by row, with other numbers of points."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pinn_ntk
from pinn_ntk import Balancing, reference_ntk
from pinn_ntk.weights.limits import Limits
from pinn_ntk.weights.pointwise import Pointwise
from pinn_ntk.weights.registry import rule_of
from pinn_ntk.weights.residual_decay import ResidualDecay
from pinn_ntk.weights.rule import BalancingRule
from pinn_ntk.weights.stability import sharpness, stable_factor

RULES = ("trace", "largest_eigenvalue", "gradient_norm", "residual_decay", "pointwise")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1)).double()


def residuals(net: nn.Module, inside: Tensor, ends: Tensor) -> dict[str, Tensor]:
    x = inside.clone().requires_grad_()
    u = net(3 * x)
    (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
    return {"pde": u_xx - torch.sin(3 * x.detach()), "bc": net(3 * ends) - 0.3}


def points(count: int, ends: int = 2) -> tuple[Tensor, Tensor]:
    inside = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]
    return inside, torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(ends // 2)[:, None]


def mean_of_squares(found: dict[str, Tensor]) -> Tensor:
    return torch.stack([r.square().mean() for r in found.values()]).sum()


def look_at(found: dict[str, Tensor], net: nn.Module, loss: Any = mean_of_squares, **kw: Any):
    return pinn_ntk.look(loss(found), net, names=list(found), **kw)


def block(residual: Tensor, net: nn.Module) -> Tensor:
    return whole({"r": residual}, net)


def whole(found: dict[str, Tensor], net: nn.Module) -> Tensor:
    K = reference_ntk(found, net)
    return torch.cat([torch.cat([K[a, b] for b in found], 1) for a in found])


def costs_by_hand(found: dict[str, Tensor], net: nn.Module) -> dict[str, dict[str, float]]:
    """Rule -> term -> c_a, from the kernel row by row and backward passes."""
    K = {n: block(r, net) for n, r in found.items()}
    diagonal = {n: block.diagonal() for n, block in K.items()}
    grads, losses = {}, {}
    for n, r in found.items():
        losses[n] = float(r.detach().square().mean())
        g = torch.autograd.grad(r.square().mean(), list(net.parameters()), retain_graph=True,
                                materialize_grads=True)  # fmt: skip
        grads[n] = float(torch.cat([p.flatten() for p in g]).norm())
    return {
        "trace": {n: float(d.mean()) for n, d in diagonal.items()},
        "largest_eigenvalue": {
            n: float(torch.linalg.eigvalsh(block)[-1]) / len(block) for n, block in K.items()
        },
        "gradient_norm": grads,
        "residual_decay": {
            n: max(grads[n] ** 2 / losses[n], 0.1 * 4 * float(diagonal[n].mean())) for n in K
        },
        "pointwise": {
            n: 1 / float((1 / d.clamp(min=0.01 * float(d.mean()))).mean())
            for n, d in diagonal.items()
        },
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_those_by_hand(rule: Any, seed: int):
    net = network(seed)
    found = residuals(net, *points(17))
    cost = costs_by_hand(found, net)[rule]
    expected = {n: sum(cost.values()) / c for n, c in cost.items()}
    assert Balancing(rule).update(look_at(found, net)) == pytest.approx(expected, rel=1e-9)
    assert max(expected.values()) > 2  # there is something to balance


@pytest.mark.parametrize("rule", RULES)
def test_points_given_again_change_no_weight(rule: Any):
    net, (inside, ends) = network(), points(17)
    once = Balancing(rule).update(look_at(residuals(net, inside, ends), net))
    for again in ((inside.repeat(7, 1), ends), (inside, ends.repeat(20, 1))):
        found = Balancing(rule).update(look_at(residuals(net, *again), net))
        assert found == pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_thinned_points_hardly_change_a_weight(rule: Any):
    net, (inside, ends) = network(), points(401)
    every = Balancing(rule).update(look_at(residuals(net, inside, ends), net))
    tenth = Balancing(rule).update(look_at(residuals(net, inside[::10], ends), net))
    assert tenth == pytest.approx(every, rel=0.1)


def test_only_two_conventions_of_the_trace_depend_on_the_number_of_points():
    net, (inside, ends) = network(), points(17)
    for convention, factor in (("mean", 1), ("sum", 7), ("rate", 1 / 7)):
        ratios = []
        for some in (inside, inside.repeat(7, 1)):
            weights = Balancing("trace", convention).update(
                look_at(residuals(net, some, ends), net)
            )
            ratios.append(weights["bc"] / weights["pde"])
        assert ratios[1] / ratios[0] == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_the_loss_do_not_enter(rule: Any):
    net = network()
    found = residuals(net, *points(17))
    plain = Balancing(rule).update(look_at(found, net))

    def weighed(found: dict[str, Tensor]) -> Tensor:
        return 100 * found["pde"].square().sum() + 0.3 * found["bc"].square().mean()

    put = {"weights": {"pde": 7.0, "bc": 0.1}}  # by a balancer on gradients
    assert Balancing(rule).update(look_at(found, net, weighed, **put)) == pytest.approx(plain)


@pytest.mark.parametrize("rule", RULES)
def test_residuals_without_a_loss_count_as_means_of_squares(rule: Any):
    net = network()
    found = residuals(net, *points(17))
    expected = Balancing(rule).update(look_at(found, net))
    alone = pinn_ntk.look(None, net, residuals=found)
    assert Balancing(rule).update(alone) == pytest.approx(expected, rel=1e-9)


def test_weights_of_points_count_in_the_stiffest_direction():
    net = network()
    found = residuals(net, *points(17))
    w = torch.linspace(0, 2, 17, dtype=torch.float64)[:, None]

    def pointwise(found: dict[str, Tensor]) -> Tensor:
        return 3 * (w * found["pde"].square()).mean() + found["bc"].square().mean()

    K, D = block(found["pde"], net), (w / w.sum()).flatten().sqrt()
    expected = float(torch.linalg.eigvalsh(D[:, None] * K * D)[-1])
    cost = rule_of("largest_eigenvalue").cost(look_at(found, net, pointwise), "pde")  # type: ignore[union-attr]
    assert cost == pytest.approx(expected, rel=1e-9)


def test_more_rows_than_blocks_are_formed_of_give_nearly_the_same_stiffest_direction():
    net = network()
    found, rule = residuals(net, *points(400)), rule_of("largest_eigenvalue")
    whole = rule.costs(look_at(found, net))  # type: ignore[union-attr]
    some = rule.costs(look_at(found, net, max_points=50))  # type: ignore[union-attr]
    assert some["pde"][1] == whole["pde"][1] == 400
    assert some["pde"][0] == pytest.approx(whole["pde"][0], rel=0.05)


@pytest.mark.parametrize("rule", ["gradient_norm", "residual_decay"])
def test_rules_on_gradients_see_more_than_squares(rule: Any):
    net = network()
    found = residuals(net, *points(17))

    def loss(found: dict[str, Tensor]) -> Tensor:
        huber = nn.functional.huber_loss(found["pde"], torch.zeros_like(found["pde"]), delta=0.5)
        return huber + 5 * found["bc"].abs().mean()

    step = look_at(found, net, loss)
    small = nn.functional.huber_loss(found["pde"], torch.zeros_like(found["pde"]), delta=0.5)
    values = {"pde": small, "bc": found["bc"].abs().mean()}
    for term, value in values.items():
        g = torch.autograd.grad(
            value, list(net.parameters()), retain_graph=True, materialize_grads=True
        )
        norm = float(torch.cat([p.flatten() for p in g]).norm())
        most = 4 * step.traces[term] / found[term].numel()
        by_hand = norm if rule == "gradient_norm" else max(norm**2 / value.item(), 0.1 * most)
        assert rule_of(rule).cost(step, term) == pytest.approx(by_hand, rel=1e-9)  # type: ignore[union-attr]


# --- The floor of the residual rule


def test_no_residual_decays_faster_than_the_trace_allows_and_none_is_chased():
    """The bounds of the docstring, on residuals in the fastest, the slowest and random modes."""
    net = network()
    found = residuals(net, *points(17))
    rule, naive, trace = ResidualDecay(), ResidualDecay(floor=1e-300), rule_of("trace")
    K = block(found["pde"], net)
    modes = torch.linalg.eigh(K).eigenvectors
    for mode in (modes[:, -1], modes[:, 0], torch.randn(17, dtype=torch.float64)):
        moved = {"pde": found["pde"] - found["pde"].detach() + mode[:, None], "bc": found["bc"]}
        step = look_at(moved, net)
        most = 4 * trace.cost(step, "pde")  # type: ignore[union-attr]
        assert naive.cost(step, "pde") <= most * (1 + 1e-9)
        assert 0.1 * most <= rule.cost(step, "pde") <= most * (1 + 1e-9)
    assert naive.cost(look_at(
        {"pde": found["pde"] - found["pde"].detach() + modes[:, :1], "bc": found["bc"]}, net
    ), "pde") < 1e-3 * most  # what would be chased  # fmt: skip


def test_a_floor_of_one_is_the_trace_rule_and_a_solved_term_costs_as_by_it():
    net = network()
    found = residuals(net, *points(17))
    by_trace = Balancing("trace").update(look_at(found, net))
    assert Balancing(ResidualDecay(floor=1.0)).update(look_at(found, net)) == pytest.approx(
        by_trace
    )
    solved = {n: r - r.detach() for n, r in found.items()}
    assert Balancing("residual_decay").update(look_at(solved, net)) == pytest.approx(by_trace)


@pytest.mark.parametrize("floor", [0.0, -1.0, 1.5, float("nan")])
def test_floor_is_checked(floor: float):
    with pytest.raises(ValueError, match=r"floor is .*; expected a number in \(0, 1\]"):
        ResidualDecay(floor=floor)


# --- Points


def test_all_points_learn_at_one_rate():
    net = network()
    found = residuals(net, *points(17))
    step, rule = look_at(found, net), Pointwise()
    weights = Balancing(rule).update(step)
    rates = {}
    for term in found:
        w = rule.points(step, term)
        assert float(w.mean()) == pytest.approx(1.0)
        assert bool((w > 0).all())
        diagonal = block(found[term], net).diagonal()
        assert float(w.max() / w.min()) <= 100 * float(diagonal.max() / diagonal.mean())
        fast = diagonal > 0.01 * diagonal.mean()
        rates[term] = (weights[term] * w * diagonal)[fast]
    every = torch.cat(list(rates.values()))
    torch.testing.assert_close(every, every.mean().expand_as(every))


# --- What moves how far


def test_a_term_that_is_not_moved_or_has_no_gradient_keeps_its_weight():
    net = network()
    found = residuals(net, *points(17))
    still = found | {"hard": 0 * found["bc"] + 2.0}
    for rule in RULES:
        balancing = Balancing(rule)
        weights = balancing.update(look_at(still, net))
        assert weights["hard"] == 1.0
        rest = {n: w for n, w in weights.items() if n != "hard"}
        assert rest == pytest.approx(Balancing(rule).update(look_at(found, net)))
    done = found | {"bc": found["bc"] - found["bc"].detach()}
    assert Balancing("gradient_norm").update(look_at(done, net)) == {"pde": 1.0, "bc": 1.0}


def test_limits_on_updates():
    net, other = network(), network(3)
    first, second = (look_at(residuals(n, *points(17)), n) for n in (net, other))
    with torch.no_grad():
        other[2].weight.mul_(100)
    fast = look_at(residuals(other, *points(17)), other)
    target = Balancing("trace").update(fast)
    before = Balancing("trace").update(first)
    free, held = Balancing("trace", max_change=float("inf")), Balancing("trace", max_change=2.0)
    for balancing in (free, held):
        assert balancing.update(first) == before
    assert free.update(fast) == target
    limited = {n: min(max(w, before[n] / 2), 2 * before[n]) for n, w in target.items()}
    assert held.update(fast) == pytest.approx(limited)
    assert limited != pytest.approx(target)
    bounded = Balancing("trace", min_weight=1.5, max_weight=2.0).update(first)
    assert set(bounded.values()) <= {1.5, 2.0}
    half = Balancing("trace", ema=0.5).update(first)
    assert half == pytest.approx({n: 0.5 + 0.5 * w for n, w in before.items()})
    assert Balancing("none").update(second) == {"pde": 1.0, "bc": 1.0}


def test_steps_between_which_weights_move():
    net = network()
    balancing = Balancing("trace", warmup_steps=10, freeze_after=20)
    seen = []
    for step in (0, 9, 10, 20, 21):
        with torch.no_grad():
            net[0].weight.mul_(1.1)
        seen.append(balancing.update(look_at(residuals(net, *points(17)), net, step=step)))
    assert seen[0] == seen[1] == {"pde": 1.0, "bc": 1.0}
    assert seen[2] != seen[3] == seen[4] != seen[1]


def test_state_goes_on_and_another_rule_starts_anew():
    net = network()
    step = look_at(residuals(net, *points(17)), net)
    one = Balancing("trace", max_change=1.5)
    one.update(step)
    again, other = Balancing("trace", max_change=1.5), Balancing("gradient_norm", max_change=1.5)
    for balancing in (again, other):
        balancing.load_state_dict(copy.deepcopy(one.state_dict()))
        assert balancing.weights == one.weights
    with torch.no_grad():
        net[2].weight.mul_(100)
    moved = look_at(residuals(net, *points(17)), net)
    assert again.update(moved) == one.update(moved)
    free = Balancing("gradient_norm").update(moved)
    assert other.update(moved) == free  # the first update of a rule is not limited
    old = {name: kept for name, kept in one.state_dict().items() if name != "rule"}
    trace, norm = Balancing("trace", max_change=1.5), Balancing("gradient_norm", max_change=1.5)
    for balancing in (trace, norm):  # of versions that knew of traces alone
        balancing.load_state_dict(copy.deepcopy(old))
    with torch.no_grad():
        net[2].weight.div_(100)
    back = look_at(residuals(net, *points(17)), net)
    assert trace.update(back) == one.update(back)
    assert norm.update(back) == Balancing("gradient_norm").update(back)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "gradnorm"}, r"rule is 'gradnorm'; expected one of \('trace'"),
        ({"rule": "none", "convention": "sum"}, "convention is 'sum' and rule is 'none'; only"),
        ({"rule": Pointwise(), "convention": "mean"}, "only rule='trace' has conventions"),
        ({"convention": "median"}, r"convention is 'median'; expected one of \('sum'"),
        ({"ema": 1.0}, r"ema is 1.0; expected a number in \[0, 1\)"),
        ({"max_change": 1.0}, "max_change is 1.0; expected a factor above 1"),
        ({"warmup_steps": -1}, "warmup_steps is -1; expected an integer of at least 0"),
        ({"warmup_steps": 1.5}, "warmup_steps is 1.5; expected an integer"),
        ({"freeze_after": 2, "warmup_steps": 3}, "freeze_after is 2; expected a step"),
        ({"min_weight": 2.0, "max_weight": 1.0}, "expected 0 <= min_weight < max_weight"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"Balancing: .*{message}"):
        Balancing(**options)


def test_a_rule_of_ones_own():
    class Loudest(BalancingRule):
        name = "loudest"

        def cost(self, look: Any, term: str) -> float:
            return float(look.kernel.diagonal(term).max())

    net = network()
    found = residuals(net, *points(17))
    top = {n: float(block(r, net).diagonal().max()) for n, r in found.items()}
    expected = {n: sum(top.values()) / c for n, c in top.items()}
    assert Balancing(Loudest()).update(look_at(found, net)) == pytest.approx(expected, rel=1e-9)


# --- Stability


@pytest.mark.parametrize("lr", [1e-6, 1.0])
def test_the_largest_stable_step_of_the_weighted_operator(lr: float):
    net = network()
    found = residuals(net, *points(17))
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    step = look_at(found, net, optimizer=optimizer)
    weights = {"pde": 3.0, "bc": 50.0}
    K = whole(found, net)
    D = torch.cat([torch.full((r.numel(),), 2 * weights[n] / r.numel()) for n, r in found.items()])
    root = D.double().sqrt()
    bound = 2 / float(torch.linalg.eigvalsh(root[:, None] * K * root)[-1])
    sharp = sharpness(step, weights)
    assert sharp == pytest.approx(lr / bound, rel=1e-7)  # by Lanczos
    assert stable_factor(sharp) == pytest.approx(1.0 if lr < bound else 0.9 * bound / lr, rel=1e-7)


def test_limits_say_where_they_are_wrong():
    with pytest.raises(ValueError, match=r"^NTKBalancer: ema is -1"):
        Limits(ema=-1, owner="NTKBalancer")


def test_weights_of_points_count_in_the_bound():
    net = network()
    found = residuals(net, *points(17))
    step = look_at(found, net, optimizer=torch.optim.SGD(net.parameters(), lr=1.0))
    w = {"pde": torch.linspace(0, 2, 17, dtype=torch.float64)}
    D = torch.cat([2 * w["pde"] / 17, torch.ones(2, dtype=torch.float64)]).sqrt()
    top = float(torch.linalg.eigvalsh(D[:, None] * whole(found, net) * D)[-1])
    assert sharpness(step, {}, w) == pytest.approx(top / 2, rel=1e-7)


# --- As people found them


def test_an_absolute_value_that_is_nearly_solved_is_not_chased_either():
    net = network()
    found = residuals(net, *points(17))
    tiny = {"pde": found["pde"] - found["pde"].detach() + 1e-5, "bc": found["bc"]}

    def loss(found: dict[str, Tensor]) -> Tensor:
        return found["pde"].abs().mean() + found["bc"].square().mean()

    step = look_at(tiny, net, loss)
    by_trace, by_decay = Balancing("trace").update(step), Balancing("residual_decay").update(step)
    for name, weight in by_trace.items():
        assert 0.1 <= by_decay[name] / weight <= 10


def test_points_behind_a_mask_do_not_count():
    net = network()
    found = residuals(net, *points(17))
    alone = look_at({"pde": found["pde"][:9], "bc": found["bc"]}, net)
    mask = (torch.arange(17) < 9)[:, None]
    masked = look_at({"pde": mask * found["pde"], "bc": found["bc"]}, net)
    rule = Pointwise()
    assert 1 <= rule.cost(masked, "pde") / rule.cost(alone, "pde") < 2  # rows of 0 made it 0.02
    w, expected = rule.points(masked, "pde"), rule.points(alone, "pde")
    assert float(w.mean()) == pytest.approx(1.0)
    torch.testing.assert_close(w[:9] / w[0], expected / expected[0])


def test_a_cost_of_zero_in_between_makes_no_first_update():
    net = network()
    found = residuals(net, *points(17))
    solved = found | {"bc": found["bc"] - found["bc"].detach()}
    balancing = Balancing("gradient_norm", max_change=2.0)
    before = balancing.update(look_at(found, net))
    assert balancing.update(look_at(solved, net))["bc"] == before["bc"]
    close = found | {"bc": found["bc"] - found["bc"].detach() + 1e-9}
    assert balancing.update(look_at(close, net))["bc"] == pytest.approx(2 * before["bc"])


def test_a_first_weight_does_not_overflow():
    net = network()
    found = residuals(net, *points(17))
    close = found | {"bc": found["bc"] - found["bc"].detach() + 1e-30}
    assert Balancing("gradient_norm").update(look_at(close, net))["bc"] == 1e12


def test_steps_are_asked_for_where_they_count():
    net = network()
    found = residuals(net, *points(17))
    for options in ({"warmup_steps": 3}, {"freeze_after": 3}):
        balancing = Balancing("trace", **options)
        balancing.update(look_at(found, net))
        with pytest.raises(ValueError, match=r"two looks are of step 0.*step=step"):
            balancing.update(look_at(found, net))
    free = Balancing("trace")
    assert free.update(look_at(found, net)) == free.update(look_at(found, net))


def test_a_cost_may_be_a_tensor():
    class Top(BalancingRule):
        name = "top"

        def cost(self, look: Any, term: str) -> Any:
            return look.diagonals[term].max()

    net = network()
    weights = Balancing(Top()).update(look_at(residuals(net, *points(17)), net))
    assert all(type(weight) is float for weight in weights.values())
