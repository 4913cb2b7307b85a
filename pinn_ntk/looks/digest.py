"""Digests by which tensors are told from those of another moment, and random states kept."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pinn_ntk.graph.subclasses import plain

SIZE = 16
"""Bytes of a digest."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest of names, shapes, dtypes and values; another one once a bit of them changes."""
    found = hashlib.blake2b(digest_size=SIZE)
    for name, tensor in ((name, plain(tensor)) for name, tensor in tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    held = tensor.detach().cpu()
    dense = held if held.layout == torch.strided else held.to_dense()
    flat = dense.resolve_conj().resolve_neg().contiguous().flatten()
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

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        key, position = self.numpy["state"]["key"], self.numpy["state"]["pos"]
        rest = {name: self.numpy[name] for name in ("bit_generator", "has_gauss", "gauss")}
        numpy = {**rest, "key": torch.from_numpy(key.astype("int64")), "pos": int(position)}
        version, numbers, gauss = self.python
        python = {"version": version, "numbers": list(numbers), "gauss": gauss}
        return {"cpu": self.cpu, "own": self.accelerator, "numpy": numpy, "python": python}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> RandomStates:
        """The states that gave it."""
        numpy, python = dict(state["numpy"]), state["python"]
        key, position = numpy.pop("key").numpy().astype("uint32"), numpy.pop("pos")
        of_python = python["version"], tuple(python["numbers"]), python["gauss"]
        whole = {**numpy, "state": {"key": key, "pos": position}}
        return cls(state["cpu"], state["own"], whole, of_python)

    def restore(self, device: torch.device) -> None:
        """Let the generators go on from here, on the same device as before."""
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            torch.get_device_module(device).set_rng_state(self.accelerator, device)
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)

    def drawn_since(self, before: RandomStates) -> bool:
        """Whether a number was drawn from one of them; on the same device as before."""
        torchs = [(self.cpu, before.cpu), (self.accelerator, before.accelerator)]
        return (
            any(a is not None and b is not None and not a.equal(b) for a, b in torchs)
            or self.python != before.python
            or pickle.dumps(self.numpy) != pickle.dumps(before.numpy)  # holds arrays
        )
