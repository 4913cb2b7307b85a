"""What was measured over a training, by name: arrays, a table, or the contents of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class History(Mapping[str, "NDArray[np.float64]"]):
    """Tag -> array (n, 2) of step and value, in the order in which they were added.

    Every tag has steps of its own: a term that a batch lacks leaves a gap, not a zero.

    Example:
        >>> history = History()
        >>> history.add(0, {"ntk/trace/pde": 8.0, "ntk/trace/bc": 2.0})
        >>> history.add(500, {"ntk/trace/pde": 6.0})
        >>> history["ntk/trace/pde"]
        array([[  0.,   8.],
               [500.,   6.]])
        >>> history.last()
        {'ntk/trace/pde': 6.0, 'ntk/trace/bc': 2.0}
    """

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[int, float]]] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add what was measured at one step; a value added again at that step replaces the first.

        Args:
            step: The step.
            values: Tag -> number, NaN and inf included.
        """
        for tag, value in values.items():
            points = self._points.setdefault(tag, [])
            if points and points[-1][0] == step:
                points.pop()
            points.append((int(step), float(value)))

    def last(self) -> dict[str, float]:
        """Tag -> its last value, at whatever step that was."""
        return {tag: points[-1][1] for tag, points in self._points.items()}

    def clear(self) -> None:
        """Forget everything."""
        self._points.clear()

    def to_dataframe(self) -> pd.DataFrame:
        """All values as a table.

        Returns:
            A row a step in rising order (index ``step``), a column a tag, NaN in gaps. Of two
            values of a tag at one step the later one counts.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "History.to_dataframe needs pandas, which is not installed: pip install pandas. "
                "history[tag] gives the same numbers as an array.",
                name=error.name,
            ) from error
        steps = sorted({step for points in self._points.values() for step, _ in points})
        index = pd.Index(steps, name="step", dtype="int64")
        columns = {tag: dict(points) for tag, points in self._points.items()}
        series = {tag: [of.get(step, np.nan) for step in steps] for tag, of in columns.items()}
        return pd.DataFrame(series, index=index, dtype="float64")

    def state_dict(self) -> dict[str, Tensor]:
        """Tag -> tensor (n, 2), float64: nothing that loading with ``weights_only`` refuses."""
        return {tag: torch.from_numpy(points) for tag, points in self.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace everything by what `state_dict` gave.

        Args:
            state: Tag -> tensor (n, 2).

        Raises:
            ValueError: A tensor has another shape; nothing is changed.
        """
        for tag, points in state.items():
            if points.ndim != 2 or points.shape[1] != 2 or not len(points):
                raise ValueError(
                    f"History: {tag!r} has shape {tuple(points.shape)}; expected (n, 2), steps and "
                    "values. Is this the state of a History?"
                )
        self._points = {
            tag: [(int(step), value) for step, value in points.tolist()]
            for tag, points in state.items()
        }

    def __getitem__(self, tag: str) -> NDArray[np.float64]:
        if tag not in self._points:
            raise KeyError(f"{tag!r} was not measured; there are {sorted(self._points)}")
        return np.array(self._points[tag], dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self.keys() == other.keys() and all(
            np.array_equal(points, other[tag], equal_nan=True) for tag, points in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        counts = ", ".join(f"{tag}: {len(points)}" for tag, points in self._points.items())
        return f"History({counts})"
