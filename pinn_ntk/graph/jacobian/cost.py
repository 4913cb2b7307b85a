"""What a measurement takes, told before it is taken, and how many rows fit what it may take.

| symbol | meaning |
| --- | --- |
| R | rows of a residual |
| r | rows of it that are measured |
| P | entries of the parameters whose rows are taken one by one |

Of ``memory_budget`` bytes half may be held as factors and written-out rows of all Jacobians
together, see `pinn_ntk.kernel.bounds`; the rest is for blocks, products and backward passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.align import aligned_uses
from pinn_ntk.graph.jacobian.piece import Piece
from pinn_ntk.graph.jacobian.pieces import pieces
from pinn_ntk.graph.jacobian.sizes import block_bytes, output_bytes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Graph
from pinn_ntk.kernel.bounds import Bounds
from pinn_ntk.kernel.sample import FEW, Sample, shared_out

SMALLEST = 8
"""Rows of each term that are measured whatever memory they take."""

NAMED = 3
"""Parameters that a message names at most."""

_DRAWN = 2  # copies of the factors of rows that are drawn: both sides of each
_PLACE = 16  # bytes that say which entry of a piece a row takes, and times what
_WRITTEN = 3  # copies of rows that are written out
_LABELLED = 4  # copies of a cotangent that decoding holds: two or three passes, and its slots

Say = Callable[[str, str], None]
"""Takes what a message is about, the same at every step, and the message."""


def captured_bytes(residual: Tensor, leaves: Mapping[str, Tensor]) -> tuple[int, int]:
    """About what it takes to read the factors of all rows off the graph, their making included.

    The second number is the same for as many rows drawn from more, whose places are not proven.
    """
    if residual.grad_fn is None:
        return (residual.numel() * residual.element_size(),) * 2
    graph = Graph(residual, leaves)
    whole = drawn = 0
    for piece in pieces(graph, residual.device):
        of_piece = graph if piece.edge == graph.result else Graph(piece.edge, leaves)
        size, aligned = _piece_bytes(of_piece, piece)
        whole, drawn = whole + size, drawn + (_DRAWN * size if aligned else size)
    return whole, drawn


def _most_bytes(residual: Tensor, leaves: Mapping[str, Tensor]) -> int:
    """As `captured_bytes`, too large where a residual has components or repeats rows."""
    if residual.grad_fn is None:
        return residual.numel() * residual.element_size()
    graph, rows = Graph(residual, leaves), residual.numel()
    total = rows * _PLACE
    for node in graph.order:
        if _meets_points(graph, node):
            slots = max(nodes.output_shape(node), default=1)
            total += _LABELLED * output_bytes(node) * max(1, math.ceil(rows / slots) ** 2)
    return total + block_bytes(graph, rows) + rows * _numbers_of_points(graph)


def _piece_bytes(graph: Graph, piece: Piece) -> tuple[int, bool]:
    """The same of one piece, whose components have sites of their own; whether it is aligned."""
    shape, entries = piece.edge.shape, len(piece.entries)
    if piece.edge.node in graph.names:
        return _WRITTEN * entries * output_bytes(*piece.edge), False
    aligned = aligned_uses(graph, shape[0] if len(shape) else 1) is not None
    copies, total = 1 if aligned else _LABELLED, len(piece.rows) * _PLACE
    for node in graph.order:
        if _meets_points(graph, node):
            slots = max(nodes.output_shape(node), default=1)
            total += copies * output_bytes(node) * max(1, math.ceil(entries / slots))
    return total + block_bytes(graph, entries), aligned


def _numbers_of_points(graph: Graph) -> int:
    """Bytes of trained numbers of which each row takes one, as pointwise weights."""
    out = nodes.output_shape
    edges = {e for node in graph.order for _, e in graph.edges(node) if e.shape == out(node)}
    return _WRITTEN * sum(output_bytes(*edge) for edge in edges if edge.node in graph.names)


def _meets_points(graph: Graph, node: Node) -> bool:
    """Whether an operation takes a parameter, be it a view, or what is computed from some."""
    inputs = [edge.node for _, edge in graph.edges(node)]
    if operation(node).view:
        return False
    computed = node not in graph.parametric and any(n in graph.parametric for n in inputs)
    return computed or any(_is_leaf(graph, n) for n in inputs)


def _is_leaf(graph: Graph, node: Node) -> bool:
    while node not in graph.names and operation(node).view:
        node = next(nodes.inputs(node))[1]
    return node in graph.names


def samples_in_memory(
    residuals: Mapping[str, Tensor], leaves: Mapping[str, Tensor], held: int
) -> dict[str, Sample]:
    """Rows of the terms whose factors would take more than ``held`` bytes all together."""
    if sum(_most_bytes(residual, leaves) for residual in residuals.values()) <= held:
        return {}  # sure without a look at the pieces, which takes passes
    needed = [captured_bytes(residual, leaves) for residual in residuals.values()]
    whole, drawn = map(sum, zip(*needed, strict=True))
    found: dict[str, Sample | None] = {}
    for term, residual in residuals.items() if whole > held else ():
        most = max(SMALLEST, residual.numel() * held // drawn)
        found[term] = Sample.drawn(residual.shape, most, whole_points=True)
    return {term: sample for term, sample in found.items() if sample is not None}


def rows_one_by_one(
    wanted: Mapping[str, int], row_bytes: Mapping[str, int], bounds: Bounds
) -> dict[str, int]:
    """Rows of each term to take one by one, of those ``wanted``: within bounds, but some of each.

    ``row_bytes`` is what one row of each takes.
    """
    room = bounds.held // max(1, len(wanted))
    fitting = {
        term: min(rows, max(FEW, room // max(1, row_bytes[term]))) for term, rows in wanted.items()
    }
    return fitting if bounds.max_rows is None else shared_out(fitting, bounds.max_rows)


def duration(seconds: float) -> str:
    """About how long, in words that hardly change from one measurement to the next.

    >>> duration(0.3), duration(13.0), duration(200.0)
    ('less than a second', 'about 10 s', 'about 3 minutes')
    """
    if seconds < 1:
        return "less than a second"
    steps = (1, 2, 3, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 1800, 3600)
    near = min(steps, key=lambda step: abs(math.log(step / seconds)))
    if seconds > 2 * steps[-1]:
        return f"about {seconds / 3600:.0f} hours"
    if near < 60:
        return f"about {near} s"
    return "about a minute" if near == 60 else f"about {near // 60} minutes"


def size(number: float) -> str:
    """Bytes in words.

    >>> size(2**21), size(3 * 2**30)
    ('2.0 MiB', '3.0 GiB')
    """
    return f"{number / 2**20:.1f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


def listed(reasons: Mapping[str, str]) -> str:
    """Parameter -> reason, in words: three parameters and three reasons at most, and counts.

    >>> listed({"a": "one", "b": "other", "c": "one"})
    'one (parameter a, c); other (parameter b)'
    >>> listed({**dict.fromkeys("abcde", "no rule"), "f": "other"})
    'no rule (parameter a, b, c and 2 more); other (1 more)'
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    said, room = [], NAMED
    for reason, names in list(by_reason.items())[:NAMED]:
        said.append(f"{reason} ({_some(names, room)})")
        room = max(0, room - len(names))
    others = len(by_reason) - len(said)
    return "; ".join(said) + (f"; and {others} other reasons" if others else "")


def _some(names: Sequence[str], room: int) -> str:
    named, more = ", ".join(names[:room]), len(names) - room
    if not room:
        return f"{more} more"
    return f"parameter {named}" + (f" and {more} more" if more > 0 else "")
