"""Where else points may lie, and which tensors hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pinn_ntk.looks.rerun import Change, Ran

Held = Mapping[str, Tensor]
"""Name of a tensor -> coordinates of the points, (N, ...), one tensor for some of them or all."""

MADE = "made."
"""How the names of tensors begin that a step makes itself, see `pinn_ntk.looks.made_points`."""

FEW = 2
"""Points of which no permutation tells much."""

MOST = 12
"""Tensors that are tried."""

NEIGHBOURS = 1024
"""Points among which the nearest one is looked for."""

FEWEST = 5
"""Points from which it can be told whether they are scattered."""

SEED = 0x5EED

FACES = 0.8
"""Share of points on faces of their box from which they are taken for a boundary."""


def movable(run: Callable[[Change], Ran]) -> dict[str, list[str]]:
    """Term -> tensors whose rows, permuted, permute its residual: its points, and all of them.

    In float64: a residual that is solved is rounding in any other dtype.
    """
    base = run(Change(double=True))
    found = _movable(run, base, lambda name: not name.startswith(MADE))
    if found.keys() != base.residuals.keys():  # those that the step makes itself
        found = _movable(run, base, lambda name: name.startswith(MADE)) | found
    return found


def _movable(
    run: Callable[[Change], Ran], base: Ran, wanted: Callable[[str], bool]
) -> dict[str, list[str]]:
    floats = {n: t for n, t in base.tensors.items() if t.is_floating_point() and t.ndim}
    candidates = [n for n, t in floats.items() if wanted(n) and len(t) > FEW][:MOST]
    lengths = {name: len(base.tensors[name]) for name in candidates}
    entering: dict[str, set[str]] = {}
    for name in candidates:
        ran = _permuted(run, {name: lengths[name]})
        if _inputs_differ(ran, base):
            entering[name] = {t for t, r in ran.residuals.items() if _differs(r, base.residuals[t])}
    found: dict[str, list[str]] = {}
    for length in {lengths[name] for name in entering}:
        group = [name for name in entering if lengths[name] == length]
        ran = _permuted(run, dict.fromkeys(group, length))
        order = _permutation(length)
        for term, old in base.residuals.items():
            names = [name for name in group if term in entering[name]]
            new = ran.residuals[term]
            if names and _rows(old, length) and _close(new.detach(), old.detach()[order]):
                found[term] = names
    return found


def _permuted(run: Callable[[Change], Ran], lengths: Mapping[str, int]) -> Ran:
    def put(name: str, tensor: Tensor) -> Tensor:
        return tensor[_permutation(lengths[name])] if name in lengths else tensor

    return run(Change(tensors=put, double=True))


def _permutation(length: int) -> Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(SEED))


def _inputs_differ(ran: Ran, base: Ran) -> bool:
    pairs = zip(ran.calls, base.calls, strict=False)
    return any(
        x.shape != y.shape or not bool((x == y).all())
        for a, b in pairs
        for x, y in zip(a.inputs, b.inputs, strict=False)
    )


def _differs(r: Tensor, old: Tensor) -> bool:
    return r.shape != old.shape or not _close(r.detach(), old.detach())


def _rows(r: Tensor, length: int) -> bool:
    return r.ndim > 0 and len(r) == length


def _close(r: Tensor, old: Tensor) -> bool:
    size = float(old.abs().max()) if old.numel() else 0.0
    return r.shape == old.shape and float((r - old).abs().max()) <= 1e-3 * size


def outside_of(old: Tensor, new: Tensor) -> float:
    """Share of some points (N, d) outside of the box of others, a tenth of it larger."""
    low, high = _box(new)
    margin = 0.1 * (high - low)
    out = (old < low - margin - 1e-9) | (old > high + margin + 1e-9)
    return float(out.any(1).double().mean())


def between(held: Held, _: Sequence[Tensor]) -> dict[str, Tensor] | None:
    """Points half way to their nearest neighbours; None where they lie on a boundary."""
    points = _joined(held)
    low, high = points.min(0).values, points.max(0).values
    size = torch.where(high > low, high - low, 1.0)
    scaled = (points - low) / size
    if points.shape[1] > 1 or len(points) < 4:
        on_face = ((scaled < 1e-6) | (scaled > 1 - 1e-6))[:, high > low].any(1)
        if float(on_face.double().mean()) > FACES:
            return None
    among = scaled[_permutation(len(scaled))[:NEIGHBOURS]]
    distance = torch.cdist(scaled, among)
    distance[distance < 1e-9] = torch.inf
    nearest = among[distance.argmin(1)]
    middle = (scaled + nearest) / 2
    return _split(held, low + size * middle)


def beyond(held: Held, others: Sequence[Tensor]) -> dict[str, Tensor] | None:
    """Points drawn evenly where the box of all terms goes beyond that of these; None if nowhere."""
    points = _joined(held)
    same = [x.to(points) for x in others if x.shape[1] == points.shape[1]]
    if not same:
        return None
    every = torch.cat([points, *same])
    low, high, least, most = *_box(points), *_box(every)
    size = most - least
    gap = torch.maximum(low - least, most - high)
    if not bool((gap > 0.1 * size).any()):
        return None
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.rand(20 * len(points), points.shape[1], generator=generator, dtype=torch.float64)
    drawn = least + size * drawn.to(points)
    outside = drawn[((drawn < low) | (drawn > high)).any(1)]
    return _split(held, outside[: len(points)]) if len(outside) >= len(points) else None


def _box(points: Tensor) -> tuple[Tensor, Tensor]:
    return points.min(0).values, points.max(0).values


def _joined(held: Held) -> Tensor:
    return torch.cat([t.detach().double().reshape(len(t), -1) for t in held.values()], 1)


def _split(held: Held, points: Tensor) -> dict[str, Tensor]:
    widths = [t[0].numel() for t in held.values()]
    parts = points.split(widths, 1)
    return {
        n: part.reshape(t.shape).to(t) for (n, t), part in zip(held.items(), parts, strict=True)
    }


IRREGULAR, RELATED = 0.3, 0.5
"""Spread of the gaps between points over their mean; correlation of a gap with the next one."""


def scattered(x: Tensor) -> bool:
    """Whether points (N, d) lie as random ones do, and not as those of a grid.

    >>> line = torch.linspace(0, 1, 30)[:, None]
    >>> scattered(line), scattered(torch.cos(3.14 * line))
    (False, False)
    >>> scattered(torch.rand(30, 1, generator=torch.Generator().manual_seed(0)))
    True
    """
    if len(x) < FEWEST:
        return False
    if x.shape[1] > 1:
        gaps = torch.cdist(x.double(), x.double()).fill_diagonal_(torch.inf).min(1).values
        return float(gaps.std()) > IRREGULAR * float(gaps.mean())
    gaps = x[:, 0].double().sort().values.diff()
    centred = gaps - gaps.mean()
    related = float((centred[1:] * centred[:-1]).mean()) / max(float(gaps.var()), 1e-30)
    return float(gaps.std()) > IRREGULAR * float(gaps.mean()) and related < RELATED
