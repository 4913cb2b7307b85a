"""Kernels of vector outputs: as matrices over the components, and as one matrix over all rows.

| symbol | meaning | shape |
| --- | --- | --- |
| f(x) | network output, or residual, of C components at a point | (C,) |
| K(x, x') | J_f(x) J_f(x')^T, kernel of two points | (C, C') |
| K | the same of all points, component c of point n in row n C + c (point-major) | (N C, N' C') |

A residual of shape (N, C) is flattened in this order; of one kept as (C, N), transpose it before
the kernel is taken. K is scaled in three ways, each with eigenvalues of its own meaning:

| matrix | eigenvalues | when |
| --- | --- | --- |
| K | rates of dr/dt = -K r, for the loss 1/2 sum r^2; grow with N | blocks of `pinn_ntk.NTK` |
| K / N | of the operator f -> 1/N sum_j K(x, x_j) f(x_j); settle for N -> inf | other N; theory |
| D^(1/2) K D^(1/2) | rates for the loss in use, where g = D r | `NTK.weighted_matrix` |

The second belongs to the empirical inner product <f, h> = 1/N sum_i f(x_i)^T h(x_i) (Jacot,
Gabriel, Hongler 2018, section 3); with the mean over components as well, divide by C besides.
The third holds the 1/N and the weights of terms and rows: D = 2/N for a mean of squares (Wang, Yu,
Perdikaris 2022, eq. 6.3).
"""

from __future__ import annotations

from torch import Tensor


def matrix_valued(block: Tensor, components: int, other: int | None = None) -> Tensor:
    """A block as one small matrix for each pair of points.

    How many components a point has cannot be read off a block, only whether its size is a multiple
    of them: a wrong number that divides the rows groups rows of different points.

    Args:
        block: K_ab of point-major rows and columns, (N C, N' C').
        components: C, components of a point of the rows.
        other: C', components of a point of the columns; may be left out of a square block.

    Returns:
        K(x_n, x_m), (N, N', C, C'), a view where the layout allows it.

    Raises:
        ValueError: The block is no matrix, its size is no multiple of the components, or it is
            not square and ``other`` was left out.

    Example:
        >>> import torch
        >>> block = torch.arange(16).reshape(4, 4)  # 2 points of 2 components
        >>> matrix_valued(block, 2)[0, 1]  # rows 0 and 1, columns 2 and 3
        tensor([[2, 3],
                [6, 7]])
    """
    columns = _check_block(block, components, other)
    rows, width = block.shape
    split = block.reshape(rows // components, components, width // columns, columns)
    return split.permute(0, 2, 1, 3)


def flattened(values: Tensor) -> Tensor:
    """Inverse of `matrix_valued`.

    Args:
        values: K(x_n, x_m), (N, N', C, C').

    Returns:
        (N C, N' C'), point-major.

    Raises:
        ValueError: ``values`` has not four axes.

    Example:
        >>> import torch
        >>> block = torch.arange(16).reshape(4, 4)
        >>> torch.equal(flattened(matrix_valued(block, 2)), block)
        True
    """
    if values.ndim != 4:
        raise ValueError(
            f"expected matrices for each pair of points, (N, N', C, C'), got shape "
            f"{tuple(values.shape)}; `matrix_valued` makes them of a block."
        )
    points, others, rows, columns = values.shape
    return values.permute(0, 2, 1, 3).reshape(points * rows, others * columns)


def component_block(
    block: Tensor, i: int, j: int, components: int, other: int | None = None
) -> Tensor:
    """Kernel of component ``i`` with component ``j``, over all pairs of points.

    Args:
        block: K_ab of point-major rows and columns, (N C, N' C').
        i: Component of the rows, from 0.
        j: Component of the columns, from 0.
        components: C, components of a point of the rows.
        other: C', components of a point of the columns; may be left out of a square block.

    Returns:
        (N, N'), a view.

    Raises:
        ValueError: The block is no matrix, its size is no multiple of the components, or it is
            not square and ``other`` was left out.
        IndexError: No such component.

    Example:
        >>> import torch
        >>> block = torch.arange(16).reshape(4, 4)  # 2 points of 2 components
        >>> component_block(block, 0, 1, 2)
        tensor([[ 1,  3],
                [ 9, 11]])
    """
    columns = _check_block(block, components, other)
    for index, count in ((i, components), (j, columns)):
        if not 0 <= index < count:
            raise IndexError(f"no component {index}; there are {count}, counted from 0.")
    return block[i::components, j::columns]


def normalised(block: Tensor, points: int) -> Tensor:
    """K / N, the matrix of the operator under the empirical inner product.

    Its eigenvalues tend to those of the integral operator as points are added, so that they can
    be compared between numbers of points.

    Args:
        block: K_ab, of any shape.
        points: N, number of points behind the columns: rows of the term over its components.

    Returns:
        The block over N.

    Raises:
        ValueError: There are no points.

    Example:
        >>> import torch
        >>> normalised(torch.tensor([[2.0, 4.0], [4.0, 8.0]]), 2)
        tensor([[1., 2.],
                [2., 4.]])
    """
    if points < 1:
        raise ValueError(f"points is {points}; expected the number of points, 1 or more.")
    return block / points


def _check_block(block: Tensor, components: int, other: int | None) -> int:
    """C', once the block is made up of points of C and of C' components."""
    if block.ndim != 2:
        raise ValueError(
            f"expected a block (N C, N' C'), got shape {tuple(block.shape)}; take kernel[a, b]."
        )
    if other is None and block.shape[0] != block.shape[1]:
        raise ValueError(
            f"a block of shape {tuple(block.shape)} is not square. Expected `other`, the "
            "components of a point of its columns, which may differ from those of its rows. Likely "
            "a cross block of two terms."
        )
    columns = components if other is None else other
    for size, count, what in zip(
        block.shape, (components, columns), ("rows", "columns"), strict=True
    ):
        if count < 1 or size % count:
            raise ValueError(
                f"{size} {what} do not make up points of {count} components each. Expected the "
                "number of outputs of a point; for a cross block with other terms, give both."
            )
    return columns
