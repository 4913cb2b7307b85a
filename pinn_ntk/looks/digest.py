"""What tells tensors and random states from those of another moment, and leaves them untouched."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

CPU = torch.device("cpu")

SIZE = 16
"""Bytes of a digest."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest of names, shapes, dtypes and values; another one once a bit of them changes."""
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


class RandomStates(NamedTuple):
    """States of the global generators at one moment."""

    cpu: Tensor  # of torch on the CPU
    accelerator: Tensor | None  # of torch on the device of the module; None on the CPU
    numpy: Any
    python: Any  # of the module `random`

    @classmethod
    def now(cls, device: torch.device) -> RandomStates:
        """Copies of the states as they are, with the accelerator's own; nothing is drawn."""
        own = None
        if device.type != "cpu":
            own = torch.get_device_module(device).get_rng_state(device)
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - the user's own state
        return cls(torch.get_rng_state(), own, numpy, random.getstate())

    def restore(self, device: torch.device) -> None:
        """Let the generators go on from here, on the same device as before."""
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


def device_of(module: nn.Module) -> torch.device:
    """Where a module says that it is, as LightningModules do; else where its parameters are."""
    own = getattr(module, "device", None)
    if isinstance(own, torch.device):
        return own
    return next((p.device for p in module.parameters()), CPU)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within, random numbers are drawn, buffers change and ``log`` is called without effect."""
    device, states, own_log = device_of(module), RandomStates.now(CPU), vars(module).get("log")
    buffers = [(part, n, b) for part in module.modules() for n, b in part._buffers.items()]
    for part, name, buffer in buffers:  # the live graph may hold the originals
        part._buffers[name] = None if buffer is None else buffer.detach().clone()
    vars(module)["log"] = lambda *_, **__: None
    try:
        with _forked(device):
            yield
    finally:
        states.restore(CPU)
        for part, name, buffer in buffers:
            part._buffers[name] = buffer
        del vars(module)["log"]
        if own_log is not None:
            vars(module)["log"] = own_log


def _forked(device: torch.device) -> AbstractContextManager[None]:
    """The random states of the CPU and of accelerators, put back at the end."""
    if device.type not in {"cpu", "cuda"}:
        return torch.random.fork_rng(devices=[device], device_type=device.type)
    # Of all CUDA devices, since a seed is set on all of them; asking must not initialise CUDA.
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    return torch.random.fork_rng(devices=range(count))
