"""Fingerprint of the points behind a residual: equal while they stay, another once they change.

Points are what meets trained parameters without depending on any: leaves that are no parameters
(coordinates with ``requires_grad``), and operands of matrix products that hold no parameter (the
batch that enters the first layer, also where it needs no gradient, is standardised or mapped to
Fourier features).

Some constants look the same and are none: the sweeps of reverse mode start from ones, which do no
harm, but go on from the slopes of a piecewise linear output activation, which change; second
derivatives of a layer norm scale its gain by statistics of the batch. So constants of at most two
values, and those that scale a bare parameter, count only where nothing else is found. What scales
anything else is left out, since it may be the mask of a dropout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import postorder

KNOWN_TO_NUMPY = {torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128}
"""Dtypes of points that are taken as they are; others are narrower than float32."""
SIZE = 16  # bytes of a digest


def fingerprint(residual: Tensor, params: Mapping[str, Tensor]) -> str | None:
    """Digest of the network's inputs behind a live residual, over all its networks.

    It depends on values, shapes and dtypes of the points alone, not on parameters or targets. An
    input that is itself masked at random counts as another point each time. Any ``nn.Parameter``
    passes for trained; other leaves that are trained have to be among ``params``, or they pass for
    points. None where no inputs are found: points may enter through operations that keep no
    operand and need no gradient.
    """
    if residual.grad_fn is None:
        return None
    known = {id(p) for p in params.values()}
    trained: set[Node] = set()  # nodes that depend on a trained parameter
    certain: set[bytes] = set()
    doubtful: set[bytes] = set()
    for node, operands in postorder(nodes.origin(residual)[0]).items():
        leaf = None if operands else nodes.leaf(node)
        if leaf is None:
            if any(child in trained for child, _ in operands):
                trained.add(node)
        elif id(leaf) in known or isinstance(leaf, nn.Parameter):
            trained.add(node)
        else:
            certain.add(_digest(leaf.detach()))
    for operand, product in _operands(trained):
        sure = operand.requires_grad or (product and not _at_most_two_values(operand))
        (certain if sure else doubtful).add(_digest(operand))
    found = sorted(certain or doubtful)
    return hashlib.blake2b(b"".join(found), digest_size=SIZE).hexdigest() if found else None


def _operands(trained: set[Node]) -> Iterator[tuple[Tensor, bool]]:
    """Operands without a parameter that meet a tensor with one, and whether in a matrix product."""
    for node in trained:
        made_by = operation(node)
        names, product = made_by.partners, made_by.matrix
        if not (product or made_by.pointwise) or not names or nodes.missing(node):
            continue
        live = {position: child for position, child, _ in nodes.inputs(node) if child in trained}
        if len(live) > 1 and len(live.keys() & names.keys()) > 1:
            continue
        for position, child in live.items():
            if position in names and (product or _is_bare(child)):
                operand = nodes.saved(node, names[position])
                if isinstance(operand, Tensor) and (product or operand.ndim):
                    yield operand, product


def _is_bare(node: Node) -> bool:
    """Whether ``node`` is a leaf, seen through views, expanded or one of its slices."""
    while operation(node).view or operation(node).name in {"Expand", "Select"}:
        node = next(nodes.inputs(node))[1]
    return nodes.leaf(node) is not None


def _at_most_two_values(tensor: Tensor) -> bool:
    flat = tensor.detach().flatten()
    if not len(flat):
        return True
    others = flat[flat != flat[0]]
    return not len(others) or bool((others == others[0]).all())


def _digest(tensor: Tensor) -> bytes:
    head = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    if tensor.dtype not in KNOWN_TO_NUMPY:
        tensor = tensor.float()
    data = tensor.numpy(force=True).tobytes()  # by force: torch.func saves zeros unmade
    return hashlib.blake2b(head + data, digest_size=SIZE).digest()
