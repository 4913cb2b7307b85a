"""What is known of each torch operation, in one table; a node of the graph is looked up by name.

An operation that is not listed has none of the properties, and neither has a user's own
``autograd.Function``. Derivatives are not listed: the backward pass of X, differentiated once more,
is ``XBackwardBackward0``. It works entry by entry, or keeps axis 0, where X does. No other property
passes on: a derivative is what residuals are made of, not what losses or weights are made of.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch.autograd.graph import Node

from pinn_ntk.graph.nodes import SAVED, kind


@dataclass(frozen=True)
class Operation:
    """Name and properties of one operation."""

    name: str  # as torch calls it, without ``BackwardN``; other nodes keep their whole name
    view: bool = False  # keeps every entry and lays them out anew
    copies: bool = False  # a view that leaves shape and order as they are
    rounds: bool = False  # a view that may change the numbers, since it changes the dtype
    keeps_numbers: bool = False  # all, in row-major order, so that rows of a residual stay rows
    keeps_axis: bool = False  # axis 0, if its length is the number of rows before and after
    pointwise: bool = False  # makes entry i of the result from entry i of each operand, broadcast
    selects: bool = False  # every entry of the result is an entry of an operand, or a constant
    joins: bool = False  # puts operands into one result, side by side
    weighs: bool = False  # weighs, selects or adds up, as a loss does with what its residuals give
    linear: bool = False  # gradient times operands gives the result, up to a constant that it adds
    sizes: bool = False  # measures how large its entries are together, as a norm does
    picks: bool = False  # gives some of the entries on, as the largest of several errors
    rescales: bool = False  # of one operand, may stand between the square of a norm and that norm
    of_leaves: bool = False  # may shape a penalty or a weight that is computed from leaves alone
    bends: bool = False  # an activation; products of parameters and constants are weights
    partners: Mapping[int, str] = field(default_factory=dict)  # factor's position -> other, saved
    matrix: bool = False  # a matrix product
    rows_lead: bool = False  # a product with the rows of its left matrix, and of what is added
    adds: bool = False  # a product that adds something, too: a layer of a network
    subtracts: bool = False  # a loss of torch that subtracts its target itself


def operation(node: Node) -> Operation:
    """What is known of the operation behind ``node``."""
    return _KNOWN.get(type(node)) or _found(node)


_KNOWN: dict[type[Node], Operation] = {}
"""What was found for each type; graphs are walked at every training step."""


def _found(node: Node) -> Operation:
    name = kind(node)
    found = _described(name)
    if type(node).__name__ == name:  # else one type of Python stands for several operations
        _KNOWN[type(node)] = found
    return found


@functools.cache
def _described(name: str) -> Operation:
    suffix = re.search(r"(Backward)+\d+$", name)
    if suffix is None:
        return _TABLE.get(name, Operation(name))
    base = name[: suffix.start()]
    listed = _TABLE.get(base, Operation(base))
    times = suffix[0].count("Backward") - 1
    if not times:
        kept = {p: o for p, o in listed.partners.items() if o in SAVED.get(name, ())}
        return replace(listed, partners=kept)
    derivative = base + times * "Backward"
    return Operation(derivative, pointwise=listed.pointwise, keeps_axis=listed.keeps_axis)


def _operations(names: str, **properties: Any) -> dict[str, Operation]:
    return {name: Operation(name, **properties) for name in names.split()}


_LINEAR: dict[str, Any] = {"weighs": True, "of_leaves": True, "linear": True}
_VIEW: dict[str, Any] = {**_LINEAR, "view": True, "selects": True, "rescales": True}
_SAME: dict[str, Any] = {"keeps_numbers": True, "keeps_axis": True}
_WEIGHS: dict[str, Any] = {"weighs": True, "of_leaves": True}
_MATRICES = {0: "mat2", 1: "self"}
_ENTRIES = {0: "other", 1: "self"}

_TABLE: dict[str, Operation] = {
    # Views
    **_operations("Alias Clone", **_VIEW, **_SAME, copies=True),
    **_operations("ReshapeAlias Squeeze UnsafeView Unsqueeze View", **_VIEW, **_SAME),
    **_operations("Permute T Transpose", **_VIEW),
    **_operations("ToCopy", **_VIEW, copies=True, rounds=True, keeps_axis=True),
    **_operations("ViewAsComplex ViewAsReal", keeps_numbers=True),
    # Arithmetic
    **_operations("Expand Neg", **_LINEAR, rescales=True, pointwise=True),
    **_operations("Sqrt", **_WEIGHS, rescales=True, pointwise=True),
    **_operations("Mul Div", **_WEIGHS, rescales=True, pointwise=True, partners=_ENTRIES),
    **_operations("Exp", **_WEIGHS, pointwise=True, bends=True),
    **_operations("Add MaskedFill Rsub Sub Where", **_LINEAR, pointwise=True),
    **_operations(
        "Addcdiv Addcmul Clamp ClampMax ClampMin Expm1 Lerp Log Log10 Log1P Log2 Maximum Minimum"
        " NanToNum Pow Reciprocal Rsqrt",
        **_WEIGHS,
        pointwise=True,
    ),
    **_operations(
        "Atan2 Copysign Fmax Fmin Fmod Hypot Logaddexp Logaddexp2 Remainder Xlogy", pointwise=True
    ),
    # Activations and other functions of one number
    **_operations(
        "Abs Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Elu Erf Erfc Gelu Hardshrink"
        " Hardsigmoid Hardswish Hardtanh LeakyRelu LogSigmoid Mish PreluKernel Relu RreluWithNoise"
        " Sgn Sigmoid Sign Silu Sin Sinh Softplus Softshrink Tan Tanh Threshold",
        pointwise=True,
        of_leaves=True,
        bends=True,
    ),
    # Reductions and selections
    **_operations("Mean Sum", **_LINEAR, rescales=True),
    **_operations("Select", **_LINEAR, rescales=True, selects=True),
    **_operations("Slice", **_LINEAR, rescales=True, keeps_axis=True, selects=True),
    **_operations("Cat", **_LINEAR, keeps_axis=True, selects=True, joins=True, picks=True),
    **_operations("Stack", **_LINEAR, selects=True, joins=True, picks=True),
    **_operations("CopySlices IndexPut", **_LINEAR, selects=True, joins=True),
    **_operations(
        "Diagonal Gather Index IndexSelect MaskedSelect Repeat",
        **_LINEAR,
        selects=True,
        picks=True,
    ),
    **_operations("Flip Roll Take", selects=True),
    **_operations("BlockDiag IndexCopy SelectScatter SliceScatter", selects=True, joins=True),
    **_operations(
        "Amax Amin AsStrided Max Median Min Nansum Sort Split SplitWithSizes Topk Trace Unbind",
        **_LINEAR,
        picks=True,
    ),
    **_operations("CopyBackwards Cumsum ScatterAdd", **_LINEAR),
    **_operations("Logsumexp Prod", **_WEIGHS),
    **_operations("LogSoftmax Softmax WeightNormInterface", of_leaves=True),
    # Norms, and what else measures how large a tensor is
    **_operations(
        "Cdist Dist EuclideanDist ForeachNorm LinalgSvd LinalgVectorNorm Norm Pdist StdMean"
        " VarMean",
        of_leaves=True,
        sizes=True,
    ),
    **_operations("Std", **_LINEAR, sizes=True),
    **_operations("Var", **_WEIGHS, sizes=True),
    **_operations("Hypot", of_leaves=True, pointwise=True, sizes=True),
    # Products
    **_operations("Dot", **_WEIGHS, partners={0: "tensor", 1: "self"}),
    **_operations("Mm", matrix=True, partners=_MATRICES, rows_lead=True),
    **_operations("Bmm", matrix=True, partners=_MATRICES),
    **_operations("Mv", matrix=True, partners={1: "self"}),
    **_operations("Addmm", matrix=True, partners={1: "mat2", 2: "mat1"}, rows_lead=True, adds=True),
    # Losses
    **_operations("HuberLoss MseLoss SmoothL1Loss", subtracts=True),
}
