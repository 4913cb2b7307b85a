"""Running a part of the user's module without leaving a trace in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
def untouched(module: nn.Module, *, draws: bool = True) -> Iterator[None]:
    """Within, random numbers are drawn, buffers change and ``log`` is called without effect.

    Random states that moved are put back. Without ``draws`` they are not looked at: the generators
    are of the process, and where nothing is drawn within, another thread may have moved them.
    """
    own_log, buffers = vars(module).get("log"), _swapped_buffers(module)
    vars(module)["log"] = lambda *_, **__: None
    states = {at: RandomStates.now(at) for at in _generators(device_of(module)) if draws}
    try:
        yield
    finally:
        for at, before in states.items():
            if RandomStates.now(at).drawn_since(before):
                before.restore(at)
        for part, name, buffer in buffers:
            part._buffers[name] = buffer
        del vars(module)["log"]
        if own_log is not None:
            vars(module)["log"] = own_log


def _generators(device: torch.device) -> list[torch.device]:
    """The CPU and the accelerators of whose random states numbers may be drawn."""
    if device.type not in {"cpu", "cuda"}:
        return [CPU, device]
    # Of all CUDA devices, since a seed is set on all of them; asking must not initialise CUDA.
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    return [CPU, *(torch.device("cuda", number) for number in range(count))]


def _swapped_buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor | None]]:
    """Put copies in the place of all buffers; the live graph may hold the originals."""
    originals = [(part, n, b) for part in module.modules() for n, b in part._buffers.items()]
    for part, name, buffer in originals:
        part._buffers[name] = None if buffer is None else buffer.detach().clone()
    return originals
