"""Every sentence of the summary below its table: said where it is true, and nowhere else.

Small trainings in plain PyTorch; each line of what is said at the end is held against numbers that
were computed another way, row by row. A sentence that no check knows fails.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk import look
from pinn_ntk.diagnostics import Panel
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.graph.reference import reference_jacobian
from tests.networks import stack

STEPS = 4  # of most runs, all of them measured
MOST = 8  # lines

SEEN = "of those looked at"
EQUAL = f"Rows that the parameters cannot tell apart from an earlier one, to rounding, {SEEN}"
STILL = f"Rows that no parameter of the kernel moves, {SEEN}"
WEIGHTS = "Weights in force, where 1 is a plain mean over the rows"
SHARES = "Shares of the groups of parameters in the trace"
BROADCAST = "broadcast by accident"

Terms = Callable[[nn.Module, int], dict[str, Tensor]]


def slope(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def equation(
    net: nn.Module, step: int, *, points: int = 4, ends: int = 1, redraw: bool = False
) -> dict[str, Tensor]:
    """u'' = -u and u(0) = 1, the latter at so many copies of its point."""
    dtype = next(net.parameters()).dtype
    generator = torch.Generator().manual_seed(step if redraw else 7)
    x = torch.rand(points, 1, generator=generator, dtype=dtype).requires_grad_()
    u = net(x)
    return {"pde": slope(slope(u, x), x) + u, "bc": net(torch.zeros(ends, 1, dtype=dtype)) - 1}


def of(**options: Any) -> Terms:
    return lambda net, step: equation(net, step, **options)


def periodic(net: nn.Module, _: int) -> dict[str, Tensor]:
    """Both ends of a period, which features of sines and cosines map to one point."""
    x = torch.tensor([[-1.0], [-0.4], [1.0]], dtype=torch.float64) * math.pi
    return {"bc": net(torch.cat([torch.sin(x), torch.cos(x)], 1)) - 1}


def broadcast(net: nn.Module, _: int) -> dict[str, Tensor]:
    x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    return {"data": net(x) - torch.sin(x[:, 0])}


def hard(net: nn.Module, step: int) -> dict[str, Tensor]:
    """A third term that no parameter moves."""
    still = 0 * net(torch.ones(3, 1, dtype=torch.float64)) + 1
    return {**equation(net, step), "hard": still}


def kinks(net: nn.Module, _: int) -> dict[str, Tensor]:
    """u' of a ReLU network, at different points: as many different rows as it has pieces."""
    x = torch.linspace(-2, 2, 30, dtype=torch.float64)[:, None].requires_grad_()
    return {"pde": slope(net(x), x) - 1, "bc": net(torch.zeros(1, 1, dtype=torch.float64))}


def integral(net: nn.Module, _: int) -> dict[str, Tensor]:
    """u integrated up to each point is that point: rows mix, and take a backward pass each."""
    x = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
    return {"pde": net(x).cumsum(0) / 40 - x, "bc": net(x[:1]) - 1}


def singular(net: nn.Module, step: int) -> dict[str, Tensor]:
    terms = equation(net, step)
    return {**terms, "pde": terms["pde"] / 0.0}


def unknown(net: nn.Module, step: int) -> dict[str, Tensor]:
    terms = equation(net.net, step)
    return {**terms, "pde": terms["pde"] + net.c}


class Inverse(nn.Module):
    """A network, and a coefficient that the module owns itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tanh()
        self.c = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))


def tanh() -> nn.Module:
    return stack([1, 12, 1]).double()


def relu() -> nn.Module:
    return stack([1, 8, 1], nn.ReLU).double()


def sgd(lr: float = 1e-3, **options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda net: torch.optim.SGD(net.parameters(), lr, **options)


PLAIN = sgd()


def two_rates(net: nn.Module) -> torch.optim.Optimizer:
    first, *rest = net.parameters()
    return torch.optim.SGD([{"params": [first], "lr": 1e-4}, {"params": rest}], lr=1e-3)


@dataclass(frozen=True)
class Run:
    """A short training, and how the sentences begin that are to be said at its end."""

    says: set[str]
    terms: Terms = equation
    network: Callable[[], nn.Module] = tanh
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = PLAIN
    weights: dict[str, float] = field(default_factory=dict)
    clip: float = math.inf
    of_look: dict[str, Any] = field(default_factory=dict)
    named: bool = True
    descends: bool = True  # whether the optimizer is asked to step
    steps: int = STEPS


@dataclass
class End:
    """The last measured step of a run."""

    text: str
    J: dict[str, Tensor]  # term -> (R, P) float64, row by row
    weights: dict[str, float]  # term -> w of w mean r^2
    optimizer: torch.optim.Optimizer
    rates: Tensor  # learning rate of each entry of the parameters, (P,)

    @property
    def lines(self) -> list[str]:
        return [line[2:] for line in self.text.splitlines() if line.startswith("- ")]


def loss_of(run: Run, terms: dict[str, Tensor]) -> Tensor:
    means = [run.weights.get(name, 1.0) * r.square().mean() for name, r in terms.items()]
    return torch.stack(means).sum()


def train(run: Run) -> End:
    torch.manual_seed(0)
    net = run.network()
    optimizer, panel = run.optimizer(net), Panel(one for one in chosen() if one.name != "verdict")
    for step in range(run.steps):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(run, run.terms(net, step))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), run.clip)
            return loss

        terms = run.terms(net, step)
        loss, names = loss_of(run, terms), list(terms) if run.named else None
        seen = look(loss, net, names=names, optimizer=optimizer, step=step, **run.of_look)
        panel.read(seen)
        J = {
            name: reference_jacobian(r, net)
            for name, r in terms.items()
            if bool(r.isfinite().all())
        }
        if run.descends:
            optimizer.step(closure)
        panel.stepped(seen)
        panel.batch_ends()
    weights = {name: run.weights.get(name, 1.0) for name in terms}
    lr = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = torch.cat([torch.full((p.numel(),), lr[p]) for p in net.parameters()]).double()
    return End(panel.summary(), J, weights, optimizer, rates)


ORDINARY = {"Step size", "Certificate"}
RUNS = {
    "plain descent": Run(ORDINARY),
    "weight decay": Run({"Certificate"}, optimizer=sgd(weight_decay=10.0)),
    "momentum": Run({"Certificate"}, optimizer=sgd(momentum=0.9)),
    "momentum, first step": Run({"Certificate"}, optimizer=sgd(momentum=0.9), steps=1),
    "first step": Run(ORDINARY, steps=1),
    "adam": Run({"Certificate"}, optimizer=lambda net: torch.optim.Adam(net.parameters(), 1e-4)),
    "adam, long steps": Run(
        {"Certificate"}, optimizer=lambda net: torch.optim.Adam(net.parameters(), 0.05)
    ),
    "lbfgs": Run({"Certificate"}, optimizer=lambda net: torch.optim.LBFGS(net.parameters(), 1e-3)),
    "clipped": Run({"Certificate"}, clip=1e-3),
    "clipped, long steps": Run({"Certificate"}, optimizer=sgd(0.5), clip=1e-3),
    "clipping that does nothing": Run(ORDINARY, clip=1e6),
    "two learning rates": Run(ORDINARY, optimizer=two_rates),
    "no step": Run({"Certificate"}, descends=False),
    "too long": Run(ORDINARY, optimizer=sgd(0.3)),
    "own weights": Run({WEIGHTS, *ORDINARY}, weights={"bc": 100.0}),
    "weights under adam": Run(
        {WEIGHTS, "Certificate"},
        weights={"pde": 3.0},
        optimizer=lambda net: torch.optim.Adam(net.parameters(), 1e-4),
    ),
    "float32": Run({"Rank", *ORDINARY}, of(points=30), network=lambda: stack([1, 12, 1])),
    "many points and few": Run({"Rank", *ORDINARY}, of(points=400)),
    "thinned": Run({"Rank", "Rows left out", *ORDINARY}, of(points=90), of_look={"max_points": 9}),
    "thinned, full rank of those kept": Run(
        {"Rows left out", *ORDINARY}, of(points=9), of_look={"max_points": 4}
    ),
    "thinned, equal points": Run(
        {"Rank", "Rows left out", EQUAL, *ORDINARY}, of(ends=90), of_look={"max_points": 9}
    ),
    "sampled": Run({"Rank", "Rows measured (~)", *ORDINARY}, integral, of_look={"max_rows": 8}),
    "equal points": Run({"Rank", EQUAL, *ORDINARY}, of(ends=6)),
    "equal points, float32": Run(
        {"Rank", EQUAL, *ORDINARY}, of(ends=6), network=lambda: stack([1, 12, 1])
    ),
    "both ends of a period": Run(
        {"Rank", EQUAL, *ORDINARY}, periodic, network=lambda: stack([2, 9, 1]).double()
    ),
    "relu": Run({"Rank", EQUAL, *ORDINARY}, kinks, network=relu),
    "zero kernel": Run({"Rank", STILL, *ORDINARY}, hard),
    "broadcast": Run({"Rank", BROADCAST, *ORDINARY}, broadcast),
    "redrawn": Run({"Points", *ORDINARY}, of(redraw=True)),
    "undefined": Run({"Undefined", "Certificate"}, singular, descends=False),
    "unnamed": Run({"Names", *ORDINARY}, named=False),
    "inverse": Run({SHARES, *ORDINARY}, unknown, Inverse),
    "inverse under adam": Run(
        {SHARES, "Certificate"},
        unknown,
        Inverse,
        optimizer=lambda net: torch.optim.Adam(net.parameters(), 1e-4),
    ),
}


# --- Each sentence against numbers made another way


def largest_rate(end: End) -> float:
    """Top of S^1/2 sum_a 2 w_a / N_a J_a^T J_a S^1/2, S the learning rates over the largest."""
    scales = (end.rates / end.rates.max()).sqrt()
    weighted = [(2 * end.weights[t] / len(J)) ** 0.5 * J * scales for t, J in end.J.items()]
    return float(torch.linalg.svdvals(torch.cat(weighted))[0] ** 2)


def true_step_size(line: str, end: End) -> bool:
    assert isinstance(end.optimizer, torch.optim.SGD)
    assert not end.optimizer.param_groups[0]["momentum"]
    bound, lr, times = map(float, re.findall(r"\d[\d.]*(?:e[+-]\d+)?", line))
    near = 0.5 if "Rows" in end.text else 0.06  # an estimate where rows are left out
    same = math.isclose(bound, 2 / largest_rate(end), rel_tol=near)
    return (
        same
        and math.isclose(lr, float(end.rates.max()), rel_tol=1e-6)
        and math.isclose(times, lr / bound, rel_tol=0.2)
    )


def true_rank(line: str, end: End) -> bool:
    for term, rank, rows in re.findall(r"(\w+) (\d+) of (\d+)", line):
        values = torch.linalg.svdvals(end.J[term])
        sure, possible = (int((values > unit * values[0]).sum()) for unit in (1e-3, 1e-9))
        kept = int(rows) <= len(end.J[term]) and int(rank) < int(rows)
        if not (kept and (sure <= int(rank) <= possible or int(rows) < len(end.J[term]))):
            return False
    return True


def equal_rows(J: Tensor) -> int:
    """Rows that equal an earlier one, to 1e-6 of their size."""
    distances, sizes = torch.cdist(J, J, compute_mode="donot_use_mm_for_euclid_dist"), J.norm(dim=1)
    return int((distances <= 1e-6 * sizes[:, None]).tril(-1).any(1).sum())


def true_equal(line: str, end: End) -> bool:
    found = re.findall(r"(\d+) of (\d+) of (\w+)", line)
    return bool(found) and all(
        (len(end.J[term]), equal_rows(end.J[term])) == (int(rows), int(equal))
        for equal, rows, term in found
    )


def true_still(line: str, end: End) -> bool:
    return all(
        (int(still), int(rows)) == (int((end.J[t].norm(dim=1) == 0).sum()), len(end.J[t]))
        for still, rows, t in re.findall(r"(\d+) of (\d+) of (\w+)", line)
    )


def true_rows(line: str, end: End) -> bool:
    found = re.findall(r"(\d+) of (\d+) of (\w+)", line)
    return bool(found) and all(int(a) < int(b) == len(end.J[term]) for a, b, term in found)


def true_weights(line: str, end: End) -> bool:
    return dict(re.findall(r"(\w+) ([\d.]+)(?=[,.]|$)", line.split(": ")[1].rstrip("."))) == {
        term: f"{weight:g}" for term, weight in end.weights.items()
    }


def true_shares(line: str, end: End) -> bool:
    """The coefficient is the first parameter."""
    return all(
        math.isclose(
            float(share),
            float(end.J[term][:, 0].square().sum() / end.J[term].square().sum()),
            rel_tol=0.05,
            abs_tol=1e-6,
        )
        for term, share in re.findall(r"(\w+) inverse ([\d.]+),", line)
    )


def true_broadcast(line: str, end: End) -> bool:
    return "The 25 rows of data look like" in line and equal_rows(end.J["data"]) == 20


CHECKS: dict[str, Callable[[str, End], bool]] = {
    "Step size": true_step_size,
    "Rank": true_rank,
    EQUAL: true_equal,
    STILL: true_still,
    BROADCAST: true_broadcast,
    WEIGHTS: true_weights,
    SHARES: true_shares,
    "Rows left out": true_rows,
    "Rows measured (~)": true_rows,
    "Points": lambda line, _: line.startswith("Points: those of pde changed"),
    "Undefined": lambda line, end: "Undefined: pde, whose" in line and "pde" not in end.J,
    "Names": lambda line, _: line.startswith("Names: term_0, term_1 ("),
    "Certificate": lambda line, _: (
        re.search(r"to (the last bit|\de-(0[6-9]|1\d))\.$", line) is not None
    ),
}
"""How a sentence begins -> whether it is true of the end of a run."""

GONE = (
    r"lags?\b|Rates|even the rates out|against each other|undoes|resolves more|float64|must fall|"
    r"trained alone|Time scales|never \(|nearly constant|linear theory|\|r\|\^2|duplicat|repeat|"
    r"given twice|definite|infinite width|too long for that|uphill"
)


@pytest.fixture(scope="module")
def ends() -> dict[str, End]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that take a pass each, and of undefined terms
        return {name: train(run) for name, run in RUNS.items()}


def beginning(line: str) -> str:
    return BROADCAST if line.startswith("The 25 rows") else line.split(":", maxsplit=1)[0]


@pytest.mark.parametrize("name", RUNS)
def test_what_is_said_is_what_there_is_to_say(name: str, ends: dict[str, End]):
    assert {beginning(line) for line in ends[name].lines} == RUNS[name].says
    assert len(ends[name].lines) <= MOST
    assert re.search(GONE, ends[name].text) is None


@pytest.mark.parametrize("name", RUNS)
def test_each_sentence_is_true(name: str, ends: dict[str, End]):
    said = {line: CHECKS[beginning(line)](line, ends[name]) for line in ends[name].lines}
    assert said == dict.fromkeys(said, True)


@pytest.mark.parametrize("sentence", CHECKS)
def test_each_sentence_is_said_somewhere_and_elsewhere_not(sentence: str):
    said = [sentence in run.says for run in RUNS.values()]
    assert any(said)
    assert not all(said) or sentence == "Certificate"


def test_false_sentences_are_recognised(ends: dict[str, End]):
    """What is true of one run is false of another."""
    for sentence, one, other in [
        ("Step size", "plain descent", "own weights"),
        (EQUAL, "equal points", "relu"),
        (STILL, "zero kernel", "thinned"),
        (WEIGHTS, "own weights", "plain descent"),
        (SHARES, "inverse", "plain descent"),
        ("Rows left out", "thinned", "plain descent"),
        ("Rank", "float32", "plain descent"),
    ]:
        (line,) = [line for line in ends[one].lines if beginning(line) == sentence]
        assert CHECKS[sentence](line, ends[one])
        line = line.replace(" of hard", " of pde")
        assert not CHECKS[sentence](line, ends[other]), sentence
