"""What residuals depend on besides their points and the trained parameters.

A forecast compares residuals at two moments, which has a meaning only for one and the same
function of the parameters. What is compared here is the batch (targets come with it), buffers,
frozen parameters, and whether random numbers are drawn, as by dropout. Attributes of a module that
are neither, such as an annealed number, and generators of the user's own cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pinn_ntk.looks.digest import RandomStates, digest
from pinn_ntk.looks.untouched import device_of
from pinn_ntk.weights.loss_weights import LossWeights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of normalisations, which follow the batches and in training enter no residual."""


class StepInputs:
    """What a step begins from: its batch, and the random states of that moment."""

    def __init__(self, module: nn.Module, batch: Any) -> None:
        self._batch = batch
        self._states = RandomStates.now(device_of(module))

    def drew_numbers(self, module: nn.Module) -> bool:
        """Whether random numbers were drawn since the batch started, as dropout does."""
        return RandomStates.now(device_of(module)).drawn_since(self._states)

    def setting(self, module: nn.Module, trained: Mapping[str, Tensor], *, batch: bool) -> str:
        """Digest of the tensors and numbers of the batch, frozen parameters and buffers.

        `STATISTICS` and the buffers of `LossWeights` are left out.
        """
        known = {id(tensor) for tensor in trained.values()}
        every = module.named_parameters()
        frozen = {n: p for n, p in every if id(p) not in known and not is_lazy(p)}
        leaves = _leaves(self._batch if batch else None)
        return digest(frozen | dict(_buffers(module)) | leaves)


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, part in module.named_modules():
        if not isinstance(part, LossWeights):  # they weigh terms, residuals do without
            for name, buffer in part.named_buffers(recurse=False):
                if name not in STATISTICS and not is_lazy(buffer):
                    yield f"{prefix}.{name}", buffer


def _leaves(batch: Any) -> dict[str, Tensor]:
    """Tensors, arrays and numbers of a batch, in the order in which its containers hold them."""
    found: list[Any] = []
    apply_to_collection(batch, (Tensor, np.ndarray, int, float, complex), found.append)
    return {f"batch {i}": _as_tensor(leaf) for i, leaf in enumerate(found)}


def _as_tensor(leaf: Any) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf
    data = leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf).encode()
    return torch.from_numpy(np.frombuffer(bytearray(data + b";"), dtype=np.uint8))
