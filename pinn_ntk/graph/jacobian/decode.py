"""Which residual row each slot of a cotangent belongs to, read off two or three backward passes.

With cotangent c_i at row i in one pass and (digit(i) + 1) c_i in another, a slot that belongs to
row i alone shows the ratio digit(i) + 1. A slot that several rows share shows no whole number:
the c_i are random, so that sums of rows cannot imitate a row. Rows are numbered in random order
for this, because rows that interact are often neighbours, and 200 and 201 are hard to tell apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.graph.jacobian.thinned import Cotangent, alike, full


@dataclass(frozen=True)
class Precision:
    """What decoding can resolve in one dtype.

    Were ``base * misfit`` not far below 1/2, a sum of rows would pass for a row by chance.
    """

    base: int  # digits are below it
    misfit: float  # largest relative deviation of a slot from a multiple of its first pass
    noise: float  # slots this much smaller than the largest may fail to decode, and are dropped


PRECISION = {torch.float64: Precision(2**20, 1e-8, 1e-13), torch.float32: Precision(32, 1e-3, 1e-5)}
LOW_PRECISION = Precision(8, 3e-2, 1e-2)

AT_ONCE = 2**14
"""Entries that are read at once: little memory is taken besides, and rows that mix soon show."""


class RowCode:
    """Cotangents of the passes that label rows, and the reading of what comes back.

    ``base`` (R,) is the cotangent of the first pass, random, of either sign and magnitude 0.5 to
    1.5. ``digits`` (R,) each, below ``radix``, number the rows, the lowest digit first.
    """

    def __init__(
        self,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        coarsest: torch.dtype | None = None,
    ) -> None:
        """Draw the cotangents; ``coarsest`` is the lowest precision on their way to the slots."""
        self.precision = PRECISION.get(coarsest or dtype, LOW_PRECISION)
        generator = torch.Generator().manual_seed(0x5DEECE66D)
        base = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.5
        base *= torch.randint(0, 2, (rows,), generator=generator) * 2 - 1
        self.base = base.to(device, dtype)
        number = torch.randperm(rows, generator=generator).to(device)
        self._row = number.argsort()
        count = next(n for n in itertools.count(0) if self.precision.base**n >= rows)
        # no larger than it need be: the smaller a label, the clearer it reads
        self.radix = max(2, math.ceil(rows ** (1 / max(count, 1))))
        self.digits = [number // self.radix**place % self.radix for place in range(count)]

    def passes(self) -> list[Tensor]:
        """Cotangents of all passes, the plain one first, each (R,)."""
        return [self.base, *((digit + 1).to(self.base.dtype) * self.base for digit in self.digits)]

    def owners(
        self, cotangents: Sequence[Cotangent], arrange: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        """Row that owns each slot, (M,), -1 for slots without gradient; None where rows share one.

        ``arrange`` brings what the passes brought to one place into slots, (M, f).
        """
        plain = arrange(full(cotangents[0]))
        count, live = len(plain), plain.any(1).nonzero().squeeze(1)
        if not len(live):
            return live.new_full((count,), -1)
        few = live if 2 * len(live) <= count else slice(None)
        plain = plain[few]
        found = [*self._read([plain, *(arrange(full(c))[few] for c in cotangents[1:])])]
        known = [part for part in found if part is not None]
        if len(known) < len(found):
            return None
        owners = live.new_full((count,), -1)
        owners[few] = torch.cat(known)
        return owners

    def apart(self, cotangents: Sequence[Cotangent]) -> bool:
        """Whether each entry belongs to one row at most."""
        entries = [values.reshape(-1, 1) for values in alike(cotangents)]
        return all(part is not None for part in self._read(entries))

    def _read(self, slots: Sequence[Tensor]) -> Iterator[Tensor | None]:
        """Owners of some slots after the other; None where rows share one, and no more then."""
        top = slots[0].abs().max()
        if slots[0].is_complex() or not bool(torch.isfinite(top)):
            yield None
            return
        top = torch.where(top > 0, top, 1)
        # scaled, or squares of large or small numbers leave the range of float32
        parts = [*zip(*(s.split(max(1, AT_ONCE // s.shape[1])) for s in slots), strict=True)]
        loudest = max(float((plain / top).square().sum(1).max()) for plain, *_ in parts)
        for part in parts:
            found = self._part([of_pass / top for of_pass in part], loudest)
            yield found
            if found is None:
                return

    def _part(self, slots: Sequence[Tensor], loudest: float) -> Tensor | None:
        plain, *passes = slots
        energy = plain.square().sum(1)
        clear = energy > 0
        number = torch.zeros(len(plain), dtype=torch.long, device=plain.device)
        quiet = energy <= self.precision.noise**2 * loudest
        for place, labelled in enumerate(passes):
            digit, certain = self._digit(plain, labelled, energy)
            number += self.radix**place * digit
            clear &= certain
            if not bool((clear | quiet).all()):
                return None
        clear &= (number >= 0) & (number < len(self.base))
        if not bool((clear | quiet).all()):
            return None
        return torch.where(clear, self._row[number.clamp(0, len(self.base) - 1)], -1)

    def _digit(self, plain: Tensor, labelled: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        ratio = (plain * labelled).sum(1) / energy
        label = ratio.nan_to_num(0.0, 0.0, 0.0).round().clamp(0, self.radix + 1)
        misfit = (labelled - label[:, None] * plain).square().sum(1)
        clear = misfit <= (self.precision.misfit * label).square() * energy
        return label.long() - 1, clear & (label >= 1) & (label <= self.radix)
