"""Residual -> factored Jacobian with its certificate; what the fast path cannot do goes row by row.

The certificate (`certificate.py` here): for a random probe v, J^T v from the factors must equal the
ordinary backward pass, parameter by parameter. A use of a parameter that was missed, rows that
interact, a wrong rule: each shows in it at once. v differs from every cotangent used before.

A residual of which only some rows are measured is from then on these rows: `Capture.residual`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from pinn_ntk.errors import ResidualError
from pinn_ntk.graph.jacobian.affordable import Refuse
from pinn_ntk.graph.jacobian.certificate import (
    ROUNDINGS,
    Probe,
    backward_probe,
    factored_probe,
    magnitudes,
    rounding_seen,
    tolerance,
)
from pinn_ntk.graph.jacobian.generic import is_freed, row_gradients
from pinn_ntk.graph.jacobian.row_factors import row_factors
from pinn_ntk.kernel.bounds import Bounds
from pinn_ntk.kernel.factors import Dense
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.sample import Sample

T = TypeVar("T")


class Capture:
    """One residual on its way to a factored Jacobian.

    Attributes:
        residual: The rows that are measured.
        jacobian: What is known so far; parameters that have reasons are missing until `finish`.
        reasons: Parameter -> why its rows have to be taken one by one.
        mixed: Parameter -> why its rows were pulled back one by one, see `mixing.py`.
        probe: The certificate; None without one.
        seconds: About the time of one backward pass: of the probe, else of reading the graph.
        reading: Time that reading the graph took, in seconds.
        components: Sets of rows that took passes of their own.
    """

    def __init__(
        self,
        term: str,
        residual: Tensor,
        leaves: Mapping[str, Tensor],
        bounds: Bounds,
        held: int,
        *,
        sample: Sample | None = None,
    ) -> None:
        self.term, self.leaves, self.bounds, self.held = term, leaves, bounds, held
        self.sample = sample
        self.residual = residual if sample is None else _rows(residual, sample)
        self.mixed: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.probe: Probe | None = None
        self.seconds = self.reading = 0.0
        self.components = 0
        self.places: Tensor | None = None  # of the rows kept among those of `residual`

    def read(self, *, certify: bool, dtype: torch.dtype, refuse: Refuse) -> None:
        """Read the factors off the graph, and compare them with a backward pass."""
        residual, leaves, exact = self.residual, self.leaves, None
        with told_if_freed(self.term):
            found, self.reading = timed(
                lambda: row_factors(residual, leaves, refuse, self.bounds.temporary, self.held)
            )
            factors, reasons, self.mixed, coarsest, self.components = found
            self.seconds = self.reading
            if certify:
                exact, self.seconds = timed(lambda: backward_probe(residual, leaves))
        if exact is not None:
            low = torch.finfo(coarsest).bits < 32  # half precision
            sizes = magnitudes(residual, leaves, factors) if low else {}
            self.probe = Probe(exact, factored_probe(residual, leaves, factors), sizes)
            failures = self._failures(self.probe, coarsest, low=low)
            reasons = {n: _off_by(e, tolerance(coarsest)) for n, e in failures.items()} | reasons
        self.reasons = {name: reasons[name] for name in leaves if name in reasons}
        self.jacobian = FactoredJacobian(
            {name: factor for name, factor in factors.items() if name not in reasons},
            {name: leaf.shape.numel() for name, leaf in leaves.items()},
            residual.numel(),
            dtype=dtype,
            device=residual.device,
            memory_budget=self.bounds.temporary,
            sample=self.sample,
        )

    def _failures(self, probe: Probe, coarsest: torch.dtype, *, low: bool) -> dict[str, float]:
        """Parameter name -> error of the factors that rounding does not explain."""
        most, rounding = tolerance(coarsest), ROUNDINGS * torch.finfo(coarsest).eps
        failures = probe.failed(most, 0.0 if low else rounding)
        if low or not failures:
            return failures
        with told_if_freed(self.term):
            seen = rounding_seen(self.residual, self.leaves, probe.exact)
        return probe.failed(most, rounding, seen)

    @property
    def slow(self) -> dict[str, Tensor]:
        """The parameters whose rows have to be taken one by one."""
        return {name: self.leaves[name] for name in self.reasons}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of them."""
        return sum(leaf.shape.numel() * leaf.element_size() for leaf in self.slow.values())

    def keep(self, most: int) -> None:
        """Go on with at most ``most`` rows, spread evenly."""
        jacobian = self.jacobian
        if self.sample is None:
            sample = Sample.drawn(torch.Size([jacobian.rows]), most)
            places = None if sample is None else sample.rows
        else:
            places, sample = self.sample.fewer(most)
        if places is None or len(places) == jacobian.rows:
            return
        kept = jacobian.take(places)
        self.jacobian = jacobian.with_factors(lambda f: f.slice(places), kept.rows, sample)
        self.places, self.sample = places, sample

    def finish(self) -> None:
        """Take the rows of the slow parameters one by one; their certificate is then anew."""
        if not self.reasons:
            return
        with told_if_freed(self.term):
            found = row_gradients(self.residual, self.slow, self.bounds.temporary, self.places)
            self.jacobian.factors.update({name: Dense(rows) for name, rows in found.items()})
            if self.probe is None:
                return
            measured, exact = self.residual, self.probe.exact
            if self.places is not None:
                measured = _entries(self.residual, self.places)
                exact = backward_probe(measured, self.leaves)
        self.probe = Probe(exact, factored_probe(measured, self.leaves, self.jacobian.factors))


def _rows(residual: Tensor, sample: Sample) -> Tensor:
    """The rows of a sample, live, with those of one point along axis 1."""
    rows = _entries(residual, sample.rows)
    return rows.view(-1, sample.each) if sample.each > 1 else rows


def _entries(residual: Tensor, places: Tensor) -> Tensor:
    with torch.enable_grad():
        return residual.reshape(-1)[places.to(residual.device)]


def _off_by(error: float, most: float) -> str:
    """The reason in words without the error itself, so that every step gives the same warning."""
    return f"the certificate is off by {f'more than {most:.0e}' if error > most else error}"


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What a backward pass gives, and its wall time."""
    begin = time.perf_counter()
    return run(), time.perf_counter() - begin


@contextmanager
def told_if_freed(term: str) -> Iterator[None]:
    """Say which graph was freed; other failures of autograd pass as they came."""
    try:
        yield
    except RuntimeError as error:
        if is_freed(error):
            raise ResidualError(
                f"the graph of residual {term!r} was already freed. Likely loss.backward() ran "
                "before; compute the kernel first, or call backward(retain_graph=True)."
            ) from error
        raise
