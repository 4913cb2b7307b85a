"""Running a part of the user's module without leaving a trace in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from pinn_ntk.looks.digest import RandomStates

CPU = torch.device("cpu")


def device_of(module: nn.Module) -> torch.device:
    """Where a module says that it is, as LightningModules do; else where its parameters are."""
    own = getattr(module, "device", None)
    if isinstance(own, torch.device):
        return own
    return next((p.device for p in module.parameters()), CPU)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within, random numbers are drawn, buffers change and ``log`` is called without effect."""
    device = device_of(module)
    states = RandomStates.now(CPU)
    own_log, buffers = vars(module).get("log"), _swapped_buffers(module)
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


def _swapped_buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor | None]]:
    """Put copies in the place of all buffers; the live graph may hold the originals."""
    originals = [(part, n, b) for part in module.modules() for n, b in part._buffers.items()]
    for part, name, buffer in originals:
        part._buffers[name] = None if buffer is None else buffer.detach().clone()
    return originals
