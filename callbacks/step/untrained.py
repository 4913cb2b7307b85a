"""Terms of a loss that are logged but not trained: no gradient flows from them.

What they are called is not in the graph. It is told from what the step logged: numbers that make up
what is missing of the loss, and are not those of a term that was found.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from torch import Tensor

from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.graph.nodes import kind, leaf, origin
from pinn_ntk.graph.terms.constant import (
    Constant,
    constant_part,
    factors_of_leaves,
    squared_twice,
)
from pinn_ntk.graph.terms.paths import nodes_below
from pinn_ntk.graph.terms.term import Term

MOST = 8
"""Logged numbers of which sums are tried."""

EQUAL = 1e-5
"""Relative difference up to which a logged number is the one that is missing."""


HIDES = "CheckpointFunctionBackward"
"""A reentrant checkpoint, behind which parameters leave no node."""

CAUSES = (
    "Likely a derivative was taken without create_graph=True, or a term was detached, read with "
    ".item() or made under torch.no_grad(). Write u_xx = torch.autograd.grad(u_x.sum(), x, "
    "create_graph=True)[0] for every derivative in a residual, and add the tensor itself."
)


def remarks(
    loss: Tensor, finder: TermFinder, trained: Iterable[Tensor], scale: float
) -> dict[str, str]:
    """What is to be said of the terms of a loss, each by what it is about.

    ``scale`` makes of the differentiated loss the one that was logged.
    """
    terms, recorder = finder.every(loss), finder.recorder
    lifeless = [name for name in dict.fromkeys(recorder.lifeless) if name not in recorder.taps]
    said = {
        "untrained": untrained(loss, terms, recorder.numbers, trained, scale, lifeless),
        "squared twice": squared_again(loss, terms),
    }
    return {what: sentence for what, sentence in said.items() if sentence}


def untrained(
    loss: Tensor,
    terms: Mapping[str, Term],
    logged: Mapping[str, Tensor | float],
    trained: Iterable[Tensor],
    scale: float,
    lifeless: Sequence[str] = (),
) -> str:
    """What of a loss no gradient flows from, in words; empty where there is nothing to say.

    ``lifeless`` are names of what was tapped without a gradient, be it for another purpose.
    """
    wanted = {id(tensor) for tensor in trained}
    rows = {name: term.residual.numel() for name, term in terms.items()}
    constant = constant_part(loss)
    if constant is not None and math.isnan(constant.value):
        return _undefined([name for name, n in rows.items() if not n], logged)
    if unreached := [n for n, term in terms.items() if rows[n] and not _reaches(term, wanted)]:
        return (
            f"{_listed(unreached)} {_have(unreached)} a gradient by the points alone, by no "
            f"trained parameter, and {_are(unreached)} not trained. {CAUSES}"
        )
    if weighed := _weighed(loss, dict(_others(terms, logged, math.nan, scale)), logged):
        return (
            f"{_listed(weighed)} {_have(weighed)} no gradient: only learned weights before "
            f"{'them' if weighed[1:] else 'it'} are trained. {CAUSES}"
        )
    if constant is None or not constant.seen:
        return ""
    constant, whole = Constant(*(scale * part for part in constant)), scale * float(loss.detach())
    names, factor = _named(constant, dict(_others(terms, logged, whole, scale)))
    return _missing(constant, whole, names or lifeless, factor)


def squared_again(loss: Tensor, terms: Mapping[str, Term]) -> str:
    """Terms that are squared once more when they are a loss already; empty where there is none."""
    found = []
    for node, rows in squared_twice(loss).items():
        below = nodes_below([node])
        names = [name for name, term in terms.items() if term.head is node]
        names = names or [name for name, term in terms.items() if term.head in below]
        found.append(f"{_listed(names)} ({rows} rows)")
    if not found:
        return ""
    return (
        f"{' and '.join(found)}: the square of one number that is a sum or mean of squares "
        "already. Squared twice, a term slows down as it falls, and may have one row in the "
        "kernel. Add that number to the loss as it is, not mse_loss(number, 0) or number ** 2."
    )


def _reaches(term: Term, trained: Container[int]) -> bool:
    """Whether a trained parameter may be behind a residual: reentrant checkpoints hide theirs."""
    behind = nodes_below([origin(term.residual)[0]] if term.residual.requires_grad else [])
    return any(id(leaf(node)) in trained or kind(node) == HIDES for node in behind)


def _undefined(empty: Sequence[str], logged: Mapping[str, Tensor | float]) -> str:
    named = empty or [key for key, value in logged.items() if math.isnan(_number(value))]
    said = "the loss is nan at this step, though all residuals found in it are finite"
    if not empty:
        return f"{said}: {_listed(named)} is nan." if named else f"{said}."
    has = "have" if empty[1:] else "has"
    return (
        f"{said}: {_listed(empty)} {has} no rows, and a mean of nothing is nan. Likely a mask or a "
        "batch is empty: leave the term out then, or take its sum over a fixed number."
    )


def _missing(constant: Constant, whole: float, names: Sequence[str], factor: float) -> str:
    if names:
        times = "" if factor == 1 else f" (times {factor:.3g})"
        return (
            f"{_listed(names)}{times} {_have(names)} no gradient and {_are(names)} not trained: "
            f"{constant.value:.3g} of the loss {whole:.3g} depends on no parameter. {CAUSES}"
        )
    return (
        f"{constant.value:.3g} of the loss {whole:.3g} depends on no parameter, and nothing is "
        "logged of that size. A constant that is meant to be there does no harm. Else a term was "
        "detached, read with .item(), or lacks create_graph=True in torch.autograd.grad."
    )


def _weighed(
    loss: Tensor, keys: Mapping[str, float], logged: Mapping[str, Tensor | float]
) -> list[str]:
    """Logged tensors without a graph that stand in the loss before a learned weight."""
    places = {factor.data_ptr() for factor in factors_of_leaves(loss)}
    plain = {key: value for key, value in logged.items() if isinstance(value, Tensor)}
    plain = {key: value for key, value in plain.items() if value.grad_fn is None}
    return [key for key, value in plain.items() if key in keys and value.data_ptr() in places]


def _others(
    terms: Mapping[str, Term], logged: Mapping[str, Tensor | float], whole: float, scale: float
) -> Iterator[tuple[str, float]]:
    """Logged numbers that are neither the loss nor those of a term that was found."""
    known = [whole]
    for term in terms.values():
        known += [scale * float(term.value), float(term.mean), float(term.total)]
    heads = {term.head for term in terms.values()}
    for key, value in logged.items():
        number = _number(value)
        made_by = value.grad_fn if isinstance(value, Tensor) else None
        if not number or not math.isfinite(number):
            continue
        if made_by is not None and not heads.isdisjoint(nodes_below([made_by])):
            continue
        if not any(math.isclose(number, other, rel_tol=EQUAL) for other in known):
            yield key, number


def _named(constant: Constant, keys: Mapping[str, float]) -> tuple[Sequence[str], float]:
    """The logged numbers that make up a constant, and the factor before them; none if unclear."""
    for count in range(1, 1 + min(len(keys), MOST)):
        for names in combinations(list(keys)[:MOST], count):
            if _equal(sum(keys[name] for name in names), constant):
                return names, 1.0
    factors = {name: float(f"{constant.value / number:.3g}") for name, number in keys.items()}
    fitting = [n for n, factor in factors.items() if _equal(factor * keys[n], constant)]
    return (fitting, factors[fitting[0]]) if len(fitting) == 1 else ((), 1.0)


def _equal(value: float, constant: Constant) -> bool:
    return abs(value - constant.value) <= 2 * constant.rounding + EQUAL * abs(constant.value)


def _number(value: Tensor | float) -> float:
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 and not value.is_complex() else math.inf
    return math.inf if isinstance(value, complex) else float(value)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(repr(name) for name in names)


def _have(names: Sequence[str]) -> str:
    return "have" if names[1:] else "has"


def _are(names: Sequence[str]) -> str:
    return "are" if names[1:] else "is"
