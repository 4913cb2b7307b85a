"""Whether the kernel is positive definite, and why rank is lost where it is not.

| symbol | meaning | shape |
| --- | --- | --- |
| K | block of one term, or the whole kernel | (R, R) |
| g | dL/dr, slope of the loss | (R,) |
| r | residual | (R,) |
| lambda_i | eigenvalues of K | (R,) |

Under gradient flow dL/dt = -g^T K g. If K is positive definite, the loss falls at a rate of
lambda_min |g|^2 at least, as long as g is not zero (Jacot, Gabriel, Hongler 2018, section 3, who
prove it in the limit of infinite width for different points on the unit sphere). If the rank is
lower, the loss falls unless g lies in the null space of K, and the part of r in that null space
stays for ever. Numerically, what lies below the rounding noise is no rank.

A rank is lost for a reason, and some are mistakes: see `pinn_ntk.analysis.repeated_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.analysis.distinct_rows import distinct_rows
from pinn_ntk.analysis.repeated_rows import (
    Additive,
    additive_cause,
    additive_form,
    duplicated_rows,
    rounding,
    still_rows,
)
from pinn_ntk.analysis.wording import counted, number, percent
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.spectrum import NOT_FINITE, Spectrum
from pinn_ntk.kernel.tsqr import factor_precision

WHOLE = "the whole kernel"
"""Name of the kernel of all terms."""

NOTHING = 1e-12  # share of the squared residual that passes for none
FULL = 0.9  # share of the rank that rows and parameters allow, from which they are what limits it
REPEATED = 0.1
"""Share of rows left out of the kernel that have to repeat others before it is said."""

EQUAL = "rows that the parameters cannot tell apart"
"""What equal rows of J are called; only equal inputs are repeated points."""


@dataclass(frozen=True)
class Definiteness:
    """Rank of a kernel above the rounding noise, and why it is not full.

    Attributes:
        name: Term, or `WHOLE`.
        rows: R.
        parameters: P; the rank cannot be larger.
        rank: Eigenvalues above the floor.
        smallest: Smallest eigenvalue above the floor; 0 for a zero kernel.
        floor: Rounding noise in the eigenvalues, of the precision of the model's dtype.
        duplicates: Groups of rows that no parameter tells apart; of the whole kernel, rows count
            on from one term to the next.
        still: Number of rows that no parameter moves.
        broadcast: Term -> (N, M), if its residual looks like (N, 1) - (M,).
        searched: Rows of the terms and how many of them differ, where the kernel is that of some of
            them and more than `REPEATED` repeat others.
        outside: Share of |r|^2 in the directions of eigenvalues at the floor and below, where
            nothing is learned, whatever weights the terms have in the loss; None where no residual
            was given, or one that is zero, or no eigenvectors.
        additive: Terms of ``broadcast`` that may be meant: all rows differ, as those of components
            that differ by a shift.
        left_out: Rows that are not in the kernel, of which nothing is known.
    """

    name: str
    rows: int
    parameters: int
    rank: int
    smallest: float
    floor: float
    duplicates: tuple[tuple[int, ...], ...]
    still: int
    broadcast: Mapping[str, tuple[int, int]]
    outside: float | None = None
    searched: tuple[int, int] | None = None
    additive: frozenset[str] = frozenset()
    left_out: int = 0

    @property
    def must_decrease(self) -> bool:
        """Whether all rows are known and the rank is full: gradient flow lowers the loss."""
        return self.rank == self.rows and not self.left_out

    @property
    def distinct(self) -> int:
        """Number of rows that differ from one another."""
        return self.rows - sum(len(group) - 1 for group in self.duplicates)

    @property
    def cause(self) -> str:
        """Why rank is lost, in a sentence; empty where nothing was recognised."""
        if self.broadcast:
            return " ".join(
                additive_cause(term, shape, certain=term not in self.additive)
                for term, shape in self.broadcast.items()
            )
        if self.still == self.rows:
            return "No parameter moves these residuals: detached, or constant by accident?"
        causes, moving = [], self.distinct - self.still
        if self.searched or self.duplicates:
            rows, different = self.searched or (self.rows, self.distinct)
            causes.append(f"{EQUAL} ({counted(different, 'different one')} of {rows})")
        if self.still:
            causes.append(f"{counted(self.still, 'row')} that no parameter moves")
        if self.rank < FULL * min(moving, self.parameters):
            if causes or self.parameters < moving:
                causes.append("eigenvalues that fall below the rounding noise")
        elif self.parameters < moving:
            causes.append(f"more rows than parameters ({self.parameters})")
        return f"Rank is lost by {' and '.join(causes)}." if causes else ""

    @property
    def statement(self) -> str:
        """Rank, what follows for gradient flow, and why it is lost, in one to three sentences."""
        known = f" on the {self.rows} of {self.rows + self.left_out} rows looked at"
        said = f"{self.name}{known if self.left_out else ''}: {self._said}."
        return f"{said} {self.cause}".rstrip()

    @property
    def _said(self) -> str:
        said = (
            f"rank {self.rank} of {self.rows}, the smallest eigenvalue above the rounding noise is "
            f"{number(self.smallest)}"
        )
        if not self.rank:
            said = "the kernel is zero"
        elif self.rank == self.rows:
            said = f"positive definite with smallest eigenvalue {number(self.smallest)}"
        return said if self.left_out else f"{said}; {self._flow}"

    @property
    def _flow(self) -> str:
        """What the loss does under gradient flow; of a part of the rows that is not known."""
        alone = self.name != WHOLE
        loss = f"under gradient flow{' of this term alone' if alone else ''} the loss"
        if not self.rank:
            return f"{loss} stays"
        if self.rank == self.rows:
            return f"{loss} falls by that times |dL/dr|^2 a unit of time at least"
        others = counted(self.rows - self.rank, "direction")
        said = f"{loss} falls unless dL/dr lies in the other {others}"
        if not alone or self.outside is None:
            return said
        return f"{said} ({_share(self.outside)} of |r|^2 lies there)"


def definiteness(
    kernel: NTK,
    term: str | None = None,
    residuals: Tensor | Mapping[str, Tensor] | None = None,
    *,
    spectrum: Spectrum | None = None,
    whole: NTK | None = None,
    distinct: Mapping[str, int] | None = None,
) -> Definiteness:
    """Rank of a kernel block above the noise, and what may be the matter if it is not full.

    Takes R^3 for the eigenvalues, unless they are given, and R^2 for the rest: of more than some
    hundred rows give `kernel_of_rows`, drawn by `stratified_rows` (`pinn_ntk.kernel.rows`), and
    all as ``whole``. Every k-th row may be one component of a vector only.

    Args:
        kernel: Kernel of the terms.
        term: Name of the term; the whole kernel when left out.
        residuals: Residual of the term, or term -> residual, in the shape that the loss sees,
            which tells broadcasting from equal rows more surely.
        spectrum: Spectrum of the block, where it is known. Without its eigenvectors the share of
            the residuals outside the range is left out.
        whole: Kernel of all rows, where ``kernel`` is that of some. Broadcasting and equal rows
            are looked for there, the latter term by term; residuals of its rows are good for
            broadcasting only.
        distinct: Term -> `distinct_rows` of ``whole``, where they are counted already.

    Returns:
        What was found.

    Raises:
        KeyError: No such term.
        ValueError: A residual is missing or of another number of rows, or J holds NaN or inf.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> a, b = (torch.tensor(v, requires_grad=True) for v in (2.0, 1.0))
        >>> u = a * torch.tensor([0.0, 0.0, 1.0, 1.0]) + b
        >>> found = definiteness(empirical_ntk({"bc": u}, [a, b]), "bc")
        >>> found.rank, found.duplicates, found.must_decrease
        (2, ((0, 1), (2, 3)), False)
        >>> found.distinct, found.cause
        (2, 'Rank is lost by rows that the parameters cannot tell apart (2 different ones of 4).')
    """
    names = kernel.terms if term is None else (term,)
    jacobians = [kernel.jacobian(name) for name in names]
    block = kernel.matrix() if term is None else kernel[term]
    if not bool(torch.isfinite(block).all()):
        raise ValueError(NOT_FINITE)
    given = _checked(residuals, names, kernel, whole or kernel)
    known = _joined(given, names, kernel)
    if spectrum is None:
        precision = factor_precision(jacobians)
        spectrum = Spectrum.of(block, eigenvectors=known is not None, precision=precision)
    still = still_rows(block, factor_precision(jacobians))
    forms = _forms(whole or kernel, names, given)
    kept = spectrum.above_floor
    return Definiteness(
        name=term or WHOLE,
        rows=len(block),
        parameters=jacobians[0].shape[1],
        rank=len(kept),
        smallest=float(kept[-1]) if len(kept) else 0.0,
        floor=spectrum.floor,
        duplicates=duplicated_rows(block, max(map(rounding, jacobians)), still),
        still=len(still),
        broadcast={name: form.shape for name, form in forms.items()},
        outside=None if known is None else _outside(known, spectrum, len(kept)),
        searched=_searched(kernel, whole or kernel, names, distinct or {}),
        additive=frozenset(name for name, form in forms.items() if not form.certain),
        left_out=sum((whole or kernel).sampled(name)[1] for name in names) - len(block),
    )


def _searched(
    kernel: NTK, whole: NTK, names: Sequence[str], known: Mapping[str, int]
) -> tuple[int, int] | None:
    """Rows of the terms and the different ones, if some were left out and many repeat others."""
    if all(whole.rows(name) <= kernel.rows(name) for name in names):
        return None
    rows = sum(whole.rows(name) for name in names)
    counts = (known[n] if n in known else distinct_rows(whole.jacobian(n)) for n in names)
    different = sum(counts)
    return (rows, different) if different < (1 - REPEATED) * rows else None


def _checked(
    residuals: Tensor | Mapping[str, Tensor] | None, names: Sequence[str], kernel: NTK, whole: NTK
) -> dict[str, Tensor]:
    """Term -> residual; empty if there are none."""
    if residuals is None:
        return {}
    if isinstance(residuals, Tensor):
        residuals = {names[0]: residuals} if len(names) == 1 else {}
    if missing := [name for name in names if name not in residuals]:
        raise ValueError(
            f"no residual for {missing}; expected term -> residual for each of {list(names)}, or "
            "one tensor beside the name of a term."
        )
    for name in names:
        size, rows = residuals[name].numel(), {kernel.rows(name), whole.rows(name)}
        if size not in rows:
            raise ValueError(
                f"the residual of term {name!r} has shape {tuple(residuals[name].shape)}, {size} "
                f"rows; its kernel has {' or '.join(map(str, sorted(rows)))}. Likely it is of "
                "other points."
            )
    return {name: residuals[name].detach() for name in names}


def _joined(given: Mapping[str, Tensor], names: Sequence[str], kernel: NTK) -> Tensor | None:
    """All residuals in one vector (R,); None where they are not of the kernel's rows."""
    if not given or any(given[name].numel() != kernel.rows(name) for name in names):
        return None
    first = kernel.jacobian(names[0])
    return torch.cat([given[name].flatten().to(first.device, torch.float64) for name in names])


def _forms(kernel: NTK, names: Sequence[str], given: Mapping[str, Tensor]) -> dict[str, Additive]:
    shapes = {name: tuple(given[name].shape) if name in given else None for name in names}
    found = {name: additive_form(kernel.jacobian(name), shape) for name, shape in shapes.items()}
    return {name: form for name, form in found.items() if form is not None}


def _outside(residual: Tensor, spectrum: Spectrum, rank: int) -> float | None:
    """Share of |r|^2 outside the range of the kernel; None for r = 0 or without eigenvectors."""
    size = float(residual.norm())
    if spectrum.eigenvectors is None or not size:
        return None
    lost = spectrum.eigenvectors[:, rank:].double().mT @ (residual / size)
    return float(lost.square().sum())


def _share(outside: float) -> str:
    return "none" if outside < NOTHING else percent(outside)
