"""What the graph tells of the network: what its first layer sees, and whether its units answer.

Read off what autograd saved of the forward pass, so that no layer needs a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.look import Look
from pinn_ntk.verdict.quantity import Measured, nothing, quantity

FLAT = 0.05
"""Slope of an activation, over its largest, below which a unit is flat at a point."""

WIDE = 4
"""Columns from which a result of an activation is taken for a layer of units."""

FEATURES = 8
"""Columns from which what a first layer sees are features: half of them count, not the worst."""

DEAD = 1e-3
"""Slope below which a unit gives the same at all points."""

SMOOTH_RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "SiluBackward0": functional.silu,
    "GeluBackward0": functional.gelu,
    "SoftplusBackward0": functional.softplus,
    "EluBackward0": functional.elu,
    "MishBackward0": functional.mish,
}

PIECEWISE = {"ReluBackward0", "LeakyReluBackward0", "HardtanhBackward0", "ThresholdBackward0",
             "PreluKernelBackward0"}  # fmt: skip

SMOOTH = {"TanhBackward0", "SigmoidBackward0", "SinBackward0", "CosBackward0", "SiluBackward0",
          "GeluBackward0", "SoftplusBackward0", "EluBackward0", "MishBackward0", "ErfBackward0",
          "ExpBackward0", "CeluBackward0"}  # fmt: skip


class Network(Measured):
    """Quantities of the networks behind the residuals."""

    look: Look

    @property
    def _nodes(self) -> dict[Node, None]:
        if "_nodes" not in self.__dict__:
            found: dict[Node, None] = {}
            for residual in self.look.residuals.values():
                if residual.grad_fn is not None:
                    found |= dict.fromkeys(postorder(nodes.origin(residual)[0]))
            self.__dict__["_nodes"] = found
        return self.__dict__["_nodes"]  # type: ignore[no-any-return]

    @quantity("inputs of the first layer", dict)
    def inputs(self) -> dict[str, float]:
        """Largest |x|, smallest spread and largest |mean| / spread of a column of the inputs.

        Columns are those of all points that a first layer sees, constant ones left out; of many,
        which are features such as cos(b x) with a small b among them, the median.
        """
        return _scales(self._first_layers())

    def _first_layers(self) -> Iterator[Tensor]:
        """Inputs of each first layer, (points, columns), of all its calls together."""
        found: dict[int, list[Tensor]] = {}
        trained = self._trained()
        for node in self._nodes:
            if nodes.kind(node) != "AddmmBackward0":
                continue
            live = {position: child for position, child, _ in nodes.inputs(node)}
            if 1 in live and live[1] in trained:
                continue
            weight = next((w for w in self._leaves(live.get(2))), None)
            if weight is not None:
                found.setdefault(id(weight), []).append(nodes.saved(node, "mat1").detach())
        for seen in found.values():
            if all(one.ndim == 2 and one.shape[1] == seen[0].shape[1] for one in seen):
                yield torch.cat(seen)

    def _trained(self) -> set[Node]:
        """Nodes that depend on a parameter; `_nodes` come with operands first."""
        found: set[Node] = set()
        for node in self._nodes:
            leaf = nodes.leaf(node)
            inside = any(child in found for _, child, _ in nodes.inputs(node))
            if inside or isinstance(leaf, nn.Parameter):
                found.add(node)
        return found

    def _leaves(self, node: Node | None) -> Iterator[Tensor]:
        if node is not None:
            for below in postorder(node):
                leaf = nodes.leaf(below)
                if leaf is not None:
                    yield leaf

    @quantity("flat units", nothing)
    def saturated(self) -> float | None:
        """Share of units and points at which a tanh or sigmoid is flat, in all layers."""
        flat = [_flat(node) for node in self._nodes]
        shares = [share for share in flat if share is not None]
        total = sum(count for _, count in shares)
        return sum(share for share, _ in shares) / total if total else None

    @quantity("dead units", nothing)
    def dead(self) -> float | None:
        """Share of units of ReLU and its kin that are flat at all points, in the worst layer."""
        slopes = [slope for slope in map(_slopes, self._nodes) if slope is not None]
        units = [s for s in slopes if s.ndim == 2 and s.shape[1] >= WIDE]
        return max((float((s < DEAD).all(0).double().mean()) for s in units), default=None)

    @quantity("activations", list)
    def activations(self) -> list[str]:
        """Activations of the networks, as autograd calls them."""
        kinds = {nodes.kind(node) for node in self._nodes}
        found = {kind for kind in kinds if kind in PIECEWISE | SMOOTH}
        return sorted(found | {nodes.kind(node) for node in self._nodes if _is_power(node)})

    @property
    def kinked(self) -> bool:
        """Whether there are activations with kinks, or none that is known, as powers are not."""
        return not self.activations or bool(set(self.activations) & PIECEWISE)

    @property
    def piecewise_linear(self) -> bool:
        """Whether all activations are linear between kinks."""
        return bool(self.activations) and set(self.activations) <= PIECEWISE


def _is_power(node: Node) -> bool:
    """Whether a node makes a power or a product of activations with kinks: that may be smooth."""
    behind = [child for child, _ in node.next_functions if child is not None]
    kinked = bool(behind) and all(nodes.kind(child) in PIECEWISE for child in behind)
    return kinked and nodes.kind(node) in {"PowBackward0", "MulBackward0"}


def _saved(node: Node, operand: str) -> Tensor | None:
    try:
        found = nodes.saved(node, operand)
    except (KeyError, AttributeError, RuntimeError):
        return None
    return found.detach() if isinstance(found, Tensor) else None


def _slopes(node: Node) -> Tensor | None:
    """Size of the slope of each entry of an activation that is flat to the left."""
    kind = nodes.kind(node)
    if kind == "ReluBackward0":
        result = _saved(node, "result")
        return None if result is None else (result > 0).double()
    x = _saved(node, "self") if kind in SMOOTH_RECTIFIERS else None
    if x is None:
        return None
    steepness = nodes.saved(node, "beta") if kind == "SoftplusBackward0" else 1.0
    x = (steepness * x).double().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(SMOOTH_RECTIFIERS[kind](x).sum(), x)
    return slope.abs()


def _flat(node: Node) -> tuple[float, int] | None:
    """Number of flat entries of an activation, and of all."""
    kind = nodes.kind(node)
    if kind not in {"TanhBackward0", "SigmoidBackward0"}:
        return None
    y = _saved(node, "result")
    if y is None or y.ndim != 2 or y.shape[1] < WIDE:
        return None
    slope = 1 - y.square() if kind == "TanhBackward0" else 4 * y * (1 - y)
    return float((slope.abs() < FLAT).sum()), y.numel()


def _scales(layers: Iterator[Tensor]) -> dict[str, float]:
    largest, spread, offset = 0.0, float("inf"), 0.0
    for layer in layers:
        x = layer.double()
        std, mean = x.std(0, correction=0), x.mean(0).abs()
        moving = std > 1e-12 * (1 + mean)
        most = 0.5 if x.shape[1] >= FEATURES else 1.0
        largest = max(largest, float(x.abs().amax(0).quantile(most)))
        if bool(moving.any()):
            spread = min(spread, float(std[moving].quantile(1 - most)))
            offset = max(offset, float((mean[moving] / std[moving]).quantile(most)))
    return {"largest": largest, "spread": spread, "offset": offset} if largest else {}
