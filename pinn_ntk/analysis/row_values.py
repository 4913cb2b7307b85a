"""Values that belong to the rows of a kernel: residuals, targets, curvatures."""

from __future__ import annotations

from torch import Tensor

from pinn_ntk.kernel.ntk import NTK


def row_values(
    kernel: NTK,
    term: str,
    values: Tensor,
    what: str,
    *,
    expected: str = "those whose kernel this is",
    finite: bool = True,
) -> Tensor:
    """Values of one term, any shape with R_a entries, flattened and detached, (R_a,)."""
    jacobian = kernel.jacobian(term)
    vector = values.detach().to(jacobian.device, jacobian.dtype).reshape(-1)
    if len(vector) != jacobian.rows or (finite and not bool(vector.isfinite().all())):
        raise ValueError(
            f"the {what} of term {term!r} has shape {tuple(values.shape)}; expected "
            f"{jacobian.rows}{' finite' if finite else ''} entries, {expected}. "
            f"{sampled_rows(kernel, term)}".rstrip()
        )
    return vector


def sampled_rows(kernel: NTK, term: str) -> str:
    """What to do about rows that a kernel lacks, in a sentence; empty where it lacks none."""
    measured, every = kernel.sampled(term)
    if measured == every:
        return ""
    return (
        f"This kernel holds {measured} of the {every} rows: one of all rows is made by "
        "empirical_ntk with max_rows=None and a larger memory_budget."
    )
