"""What residuals depend on besides their points and the trained parameters.

A forecast compares residuals at two moments, which has a meaning only for one and the same
function of the parameters. What is compared here is the batch (targets come with it), buffers,
frozen parameters, and whether random numbers are drawn, as by dropout. Attributes of a module that
are neither, such as an annealed number, and generators of the user's own cannot be seen.
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.nn.parameter import is_lazy

from pinn_ntk.weights.loss_weights import LossWeights

if TYPE_CHECKING:
    import pytorch_lightning as pl

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of normalisations, which follow the batches and in training enter no residual."""

SIZE = 16
"""Bytes of a digest."""


class RandomStates(NamedTuple):
    """States of the global generators at one moment.

    Attributes:
        cpu: Of torch on the CPU.
        accelerator: Of torch on the device of the module; None on the CPU.
        numpy: Of NumPy.
        python: Of the module `random`.
    """

    cpu: Tensor
    accelerator: Tensor | None
    numpy: Any
    python: Any

    @classmethod
    def now(cls, device: torch.device) -> RandomStates:
        """The states as they are.

        Args:
            device: Device of the module.

        Returns:
            Copies; nothing is drawn.
        """
        own = None
        if device.type != "cpu":
            own = torch.get_device_module(device).get_rng_state(device)
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - the user's own state
        return cls(torch.get_rng_state(), own, numpy, random.getstate())

    def restore(self, device: torch.device) -> None:
        """Let the generators go on from here.

        Args:
            device: Device of the module, the same as before.
        """
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            torch.get_device_module(device).set_rng_state(self.accelerator, device)
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)

    def digest(self) -> str:
        """Another one as soon as a number is drawn."""
        found = hashlib.blake2b(pickle.dumps((self.numpy, self.python)), digest_size=SIZE)
        found.update(_bytes(self.cpu))
        if self.accelerator is not None:
            found.update(_bytes(self.accelerator))
        return found.hexdigest()


def setting(module: pl.LightningModule, trained: Mapping[str, Tensor], batch: Any) -> str:
    """Digest of what residuals depend on besides points, trained parameters and random numbers.

    Args:
        module: The module.
        trained: Name -> trained parameter.
        batch: The batch; None where residuals do not depend on it.

    Returns:
        Hex digest of the batch's tensors and numbers, the frozen parameters and the buffers of the
        module; `STATISTICS` and the buffers of `LossWeights` are left out.
    """
    known = {id(tensor) for tensor in trained.values()}
    frozen = {n: p for n, p in module.named_parameters() if id(p) not in known and not is_lazy(p)}
    return digest(frozen | dict(_buffers(module)) | _leaves(batch))


def _buffers(module: pl.LightningModule) -> Iterator[tuple[str, Tensor]]:
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


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of the names, shapes, dtypes and values of tensors.

    Args:
        tensors: Name -> tensor.

    Returns:
        Hex digest, another one once a bit of them changes.
    """
    found = hashlib.blake2b(digest_size=SIZE)
    for name, tensor in tensors.items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    held = tensor.detach().cpu()
    plain = held if held.layout == torch.strided else held.to_dense()
    flat = plain.as_subclass(Tensor).resolve_conj().resolve_neg().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
