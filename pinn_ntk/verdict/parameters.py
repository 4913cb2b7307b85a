"""Parameters that the residuals depend on and that nobody trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.terms.constant import constant_part
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.quantity import nothing, quantity
from pinn_ntk.verdict.reruns import Reruns

SUMS = {"Add", "Sub", "Neg", "Sum", "Mean", "Stack", "View", "Unsqueeze", "Squeeze"}
"""Operations that put a loss together from its parts."""

PROBES = 4
"""Random probes of which the share of a trace is estimated."""

SEED = 0x5EED


class Parameters(Reruns):
    """Quantities of parameters beside those that are trained."""

    @quantity("parameters without an optimizer", list)
    def unheld(self) -> list[str]:
        """Parameters in the graph of the residuals, with gradient, that no optimizer holds."""
        return list(self._unheld())

    def _unheld(self) -> dict[str, Tensor]:
        if not self.look.optimizers:
            return {}
        held = {id(p) for o in self.look.optimizers for g in o.param_groups for p in g["params"]}
        module = self.look.module
        leaves = {id(leaf): leaf for leaf in _leaves(self.look.residuals)}
        outside = {i: p for i, p in leaves.items() if isinstance(p, nn.Parameter) and i not in held}
        named = [] if module is None else list(module.named_parameters())
        found: dict[str, Tensor] = {name: p for name, p in named if id(p) in outside}
        found |= self._numbers(leaves, held)
        strange = [p for i, p in outside.items() if i not in {id(p) for p in found.values()}]
        return found | {f"parameter of shape {tuple(p.shape)}": p for p in strange}

    def _numbers(self, leaves: Mapping[int, Tensor], held: set[int]) -> dict[str, Tensor]:
        """Single numbers that the module holds unregistered, and that no network sees."""
        module = self.look.module
        if module is None or self.look.rerun is None or self.base is None:
            return {}
        single = {
            name: tensor
            for name, tensor in vars(module).items()
            if isinstance(tensor, Tensor) and tensor.numel() == 1 and id(tensor) in leaves
        }
        inputs = {str(i): x for i, x in enumerate(x for c in self.base.calls for x in c.inputs)}
        seen = {id(leaf) for leaf in (*inputs.values(), *_leaves(inputs))}
        copies = {name: self.base.tensors.get(name) for name in single}
        return {n: t for n, t in single.items() if id(t) not in held and id(copies[n]) not in seen}

    @quantity("numbers wrapped anew", int)
    def wrapped(self) -> int:
        """Single numbers with a gradient that are added to the loss, and are no parameters.

        A sum that begins with zeros(1, requires_grad=True) has lost nothing by that.
        """
        if self.look.loss is None or self.look.loss.grad_fn is None:
            return 0
        known = {id(p) for p in self.look.trained.values()}
        start = nodes.origin(self.look.loss)[0]
        leaves = [nodes.leaf(node) for node in nodes.reachable([start], _summed)]
        strange = [x for x in leaves if x is not None and not isinstance(x, nn.Parameter)]
        single = [x for x in strange if x.numel() == 1 and id(x) not in known]
        return sum(bool(x.detach().count_nonzero()) for x in single)

    @quantity("what of the loss depends on no parameter", float)
    def constant(self) -> float:
        """That part of the value of the loss; 0 where there is none, or where it is not known."""
        loss = self.look.loss
        if loss is None or loss.grad_fn is None:
            return 0.0
        found = constant_part(loss)
        return found.value if found is not None and found.seen else 0.0

    @quantity("their share of the kernel", nothing)
    def unheld_share(self) -> float | None:
        """Share of what no optimizer holds in the trace of the kernel of all parameters."""
        outside = self._unheld()
        if not outside:
            return None
        return _share(self.look.residuals, outside, dict(self.look.trained))

    @quantity("parameters with the learning rate 0", list)
    def idle(self) -> list[str]:
        """Parameters in groups whose learning rate is 0, where that of others is not."""
        groups = [g for o in self.look.optimizers for g in o.param_groups]
        if not any(_rate(g) for g in groups):
            return []
        still = {id(p) for g in groups if not _rate(g) for p in g["params"]}
        return [name for name, p in self.look.trained.items() if id(p) in still]

    @quantity("frozen parameters", list)
    def frozen(self) -> list[str]:
        """Parameters of the module without a gradient."""
        if self.look.module is None:
            return []
        return [n for n, p in self.look.module.named_parameters() if not p.requires_grad]

    @quantity("networks that are frozen", bool)
    def frozen_network(self) -> bool:
        """Whether a part of the module of two layers or more is frozen, and others are not."""
        parts = {name.rpartition(".")[0].rpartition(".")[0] for name in self.frozen} - {""}
        for part in parts:
            layers = {n.rpartition(".")[0] for n in self.frozen if n.startswith(f"{part}.")}
            if len(layers) > 1 and not any(n.startswith(f"{part}.") for n in self.look.trained):
                return True
        return False

    @quantity("the share of frozen parameters", nothing)
    def frozen_share(self) -> float | None:
        """Share of frozen parameters in the trace of the kernel of all parameters."""
        if not self.frozen or self.look.rerun is None:
            return None
        thawed = self.look.rerun(Change(thaw=True))
        names = set(self.frozen)
        outside = {n: p for n, p in thawed.params.items() if n in names}
        inside = {n: p for n, p in thawed.params.items() if n not in names}
        return _share(thawed.residuals, outside, inside)


def _rate(group: Mapping[str, Any]) -> float:
    """Learning rate of a group; of an optimizer that has none, one that is not 0."""
    return float(group.get("lr", 1.0))


def _summed(node: Node) -> list[Node]:
    """What a sum adds up, and what is weighed by a constant; nothing of any other operation."""
    operands = [child for _, child, _ in nodes.inputs(node)]
    name = operation(node).name
    return operands if name in SUMS or (name in {"Mul", "Div"} and len(operands) == 1) else []


def _leaves(residuals: Mapping[str, Tensor]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for residual in residuals.values():
        if residual.grad_fn is not None:
            for node in postorder(nodes.origin(residual)[0]):
                leaf = nodes.leaf(node)
                if leaf is not None:
                    found.setdefault(id(leaf), leaf)
    return list(found.values())


def _share(
    residuals: Mapping[str, Tensor], outside: Mapping[str, Tensor], inside: Mapping[str, Tensor]
) -> float:
    """Share of the columns outside in the trace, by random probes of signs."""
    live = [r for r in residuals.values() if r.requires_grad and not r.is_complex()]
    wanted = [*outside.values(), *inside.values()]
    squares = torch.zeros(len(wanted), dtype=torch.float64)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(PROBES):
        signs = [_signs(r, generator) for r in live]
        found = torch.autograd.grad(live, wanted, signs, retain_graph=True, allow_unused=True)
        squares += torch.tensor(
            [0.0 if g is None else float(g.double().norm()) ** 2 for g in found]
        )
    total = float(squares.sum())
    return float(squares[: len(outside)].sum()) / total if total else 0.0


def _signs(r: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs over the root of the number of rows, so that each term counts by its mean."""
    drawn = torch.randint(0, 2, r.shape, generator=generator) * 2 - 1
    return drawn.to(r).div(math.sqrt(max(1, r.numel())))
