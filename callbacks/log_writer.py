"""What a monitor keeps and hands to the loggers: scalars, spectra, words and the history figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pinn_ntk.analysis.interference import Interference, interference_figure
from pinn_ntk.callbacks.trainer.flavours import rank_zero_info
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.callbacks.trainer.loggers import (
    log_figure,
    log_layout,
    log_scalars,
    log_spectra,
    log_text,
    writers,
)
from pinn_ntk.callbacks.trainer.steps import StepCount
from pinn_ntk.diagnostics.decrease import Judged
from pinn_ntk.diagnostics.history import History
from pinn_ntk.diagnostics.measurement import Measurement
from pinn_ntk.diagnostics.report import history_figure, scalars, summary
from pinn_ntk.kernel.spectrum import Spectrum

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from matplotlib.figure import Figure

PREDICTED_DECREASE = "predicted_decrease_ratio"
"""What a forecast that was judged is logged under."""


class Logbook:
    """Keeps every measurement of a monitor, over fits and restarts, and logs it.

    Args:
        guard: Runs what may fail.
        max_points: Limit on the rows of a block, to be named in words.

    Attributes:
        history: Tag -> array of (step, value).
        spectra: Term -> (step, spectrum).
        prefix: First part of all tags.
        count: Steps over all fits.
    """

    def __init__(self, guard: Guard, max_points: int) -> None:
        """Nothing measured yet."""
        self.guard, self.max_points = guard, max_points
        self.history = History()
        self.spectra: dict[str, list[tuple[int, Spectrum]]] = {}
        self.prefix = "ntk"
        self.count = StepCount()
        self._interference: list[tuple[int, Interference]] = []  # the first and the last
        self._judged: Judged | None = None  # the last one, at its step over all fits
        self._last: Measurement | None = None
        self._told: int | None = None

    def open(self, prefix: str, step: int, *, resumed: bool) -> None:
        """A fit starts at a step of Lightning's."""
        self.prefix, self._last, self._told = prefix, None, None
        self.count.open(step, resumed=resumed)

    def keep(
        self, trainer: pl.Trainer, measurement: Measurement, overhead: float
    ) -> dict[str, float]:
        """Add a measurement, and hand it to the loggers.

        Args:
            trainer: Owner of the loggers.
            measurement: What was measured.
            overhead: Share of wall time spent.

        Returns:
            Tag -> number.
        """
        step, first = measurement.step, self._last is None
        self._last = measurement
        overheads = {f"{self.prefix}/overhead_fraction": overhead}
        values = scalars(measurement, prefix=self.prefix) | overheads
        self.history.add(self.count(step), values)
        for term, spectrum in measurement.spectra.items():
            self.spectra.setdefault(term, []).append((self.count(step), spectrum))
        if measurement.interference is not None:
            self._interference[1:] = [(self.count(step), measurement.interference)]
        self.guard.run("logging scalars", partial(log_scalars, trainer, values, step))
        spectra = partial(log_spectra, trainer, measurement, prefix=self.prefix)
        self.guard.run("logging spectra", spectra)
        if first:
            self.guard.run("logging the layout", partial(log_layout, trainer, self.prefix))
            self._tell(trainer, measurement)
        return values

    def add(self, trainer: pl.Trainer, judged: Judged) -> dict[str, float]:
        """Add what became of the forecast of a step, and hand it to the loggers.

        Args:
            trainer: Owner of the loggers.
            judged: What became of it.

        Returns:
            Tag -> number.
        """
        tagged = {f"{self.prefix}/{PREDICTED_DECREASE}": judged.ratio}
        self._judged = judged._replace(step=self.count(judged.step))
        self.history.add(self._judged.step, tagged)
        self.guard.run("logging scalars", partial(log_scalars, trainer, tagged, judged.step))
        return tagged

    def conclude(self, trainer: pl.Trainer) -> None:
        """Log the last summary and the figure, once a fit, if anything was measured."""
        last, self._last = self._last, None
        if last is None:
            return
        if last.step != self._told:
            self._tell(trainer, last)
        history = partial(history_figure, self.spectra, points=last.points)
        between = partial(interference_figure, self._panels)
        if self.spectra:
            draw = partial(self._draw, trainer, "history", history, last.step)
            self.guard.run("the history figure", draw)
        if self._interference:
            draw = partial(self._draw, trainer, "interference", between, last.step)
            self.guard.run("the interference figure", draw)

    @property
    def _panels(self) -> dict[str, Interference]:
        return {f"step {step}": measured for step, measured in self._interference}

    def _tell(self, trainer: pl.Trainer, measurement: Measurement) -> None:
        self._told = measurement.step
        self.guard.run("the summary", partial(self._write, trainer, measurement))

    def _write(self, trainer: pl.Trainer, measurement: Measurement) -> None:
        text = summary(
            measurement, max_points=self.max_points, judged=self._judged, attempt=self.guard.run
        )
        log_text(trainer, f"{self.prefix}/summary", text, measurement.step)

    def _draw(self, trainer: pl.Trainer, name: str, make: Callable[[], Figure], step: int) -> None:
        if next(writers(trainer), None) is None:
            return
        try:
            figure = make()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            if name == "history":
                rank_zero_info("NTKMonitor: no figures without matplotlib; pip install it.")
            return
        log_figure(trainer, f"{self.prefix}/figure/{name}", figure, step)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "history": self.history.state_dict(),
            "spectra": {term: _plain(series) for term, series in self.spectra.items()},
            "interference": [
                [step, list(measured.terms), measured.matrix.cpu()]
                for step, measured in self._interference
            ],
            "judged": [] if self._judged is None else list(self._judged),
            "count": self.count.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another logbook has kept."""
        self.history.load_state_dict(state["history"])
        self.spectra = {
            term: [(step, Spectrum(values, floor)) for step, values, floor in series]
            for term, series in state["spectra"].items()
        }
        self._interference = [
            (step, Interference(tuple(terms), matrix))
            for step, terms, matrix in state.get("interference", [])
        ]
        judged = state.get("judged", [])
        self._judged = Judged(*judged) if judged else None
        self.count.load_state_dict(state["count"])


def _plain(series: Sequence[tuple[int, Spectrum]]) -> list[tuple[int, Tensor, float]]:
    return [(step, spectrum.eigenvalues, spectrum.floor) for step, spectrum in series]
