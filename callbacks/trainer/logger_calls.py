"""What a logger takes besides scalars, by the calls that it has: its package is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pinn_ntk.diagnostics.figures import pixels
from pinn_ntk.tensorboard import add_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Layout = Mapping[str, Mapping[str, list[object]]]

COLUMNS = ["step", "index", "eigenvalue"]
"""Of the table of a spectrum; index 0 is the largest eigenvalue."""


class Taker:
    """One logger. What it has no call for is passed over."""

    def layout(self, charts: Layout) -> None:
        """Charts of TensorBoard's custom scalars tab."""

    def spectrum(self, tag: str, values: Tensor, step: int, facts: Mapping[str, Any]) -> None:
        """Eigenvalues (n,), largest first."""

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown."""

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """A picture."""

    def flush(self) -> None:
        """Write what waits."""


class Events(Taker):
    """TensorBoard: the ``SummaryWriter`` of its logger."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def layout(self, charts: Layout) -> None:
        self.writer.add_custom_scalars(charts)

    def spectrum(self, tag: str, values: Tensor, step: int, facts: Mapping[str, Any]) -> None:
        add_spectrum(self.writer, tag, values, step, **{"rel_floor": 0.0, **facts})

    def text(self, tag: str, text: str, step: int) -> None:
        self.writer.add_text(tag, text, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """As an image, without pyplot (which ``add_figure`` would import)."""
        self.writer.add_image(tag, pixels(figure), step, dataformats="HWC")

    def flush(self) -> None:
        self.writer.flush()


class Tables(Taker):
    """Weights & Biases: tables whose rows hold the step, and images that are captioned with it."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def spectrum(self, tag: str, values: Tensor, step: int, facts: Mapping[str, Any]) -> None:
        rows = [[step, index, value] for index, value in enumerate(values.tolist())]
        self.logger.log_table(tag, columns=list(COLUMNS), data=rows, step=step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Under a key of its own: that of a verdict holds a number already."""
        columns, data = ["step", "text"], [[step, text]]
        self.logger.log_text(f"{tag}/text", columns=columns, data=data, step=step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.log_image(tag, images=[pixels(figure)], step=step, caption=[f"step {step}"])


class Artifacts(Taker):
    """MLflow: files of the run, one a step."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def spectrum(self, tag: str, values: Tensor, step: int, facts: Mapping[str, Any]) -> None:
        content = {"step": step, "eigenvalues": values.tolist()}
        self.client.log_dict(self.run_id, content, f"{tag}/{step}.json")

    def text(self, tag: str, text: str, step: int) -> None:
        self.client.log_text(self.run_id, text, f"{tag}/{step}.md")

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.client.log_figure(self.run_id, figure, f"{tag}/{step}.png")


def taker(logger: Any) -> Taker | None:
    """How to hand more than scalars to a logger; None if it has no calls for that.

    None, too, on ranks that write nothing, and for what Lightning puts in the place of loggers.
    """
    if _has(logger, "log_table", "log_text", "log_image"):
        return Tables(logger)
    experiment = getattr(logger, "experiment", None)
    if _has(experiment, "log_dict", "log_text", "log_figure") and hasattr(logger, "run_id"):
        return Artifacts(experiment, logger.run_id)
    if experiment is None or not hasattr(experiment, "add_custom_scalars"):
        return None
    return None if experiment._get_file_writer() is None else Events(experiment)


def _has(thing: object, *calls: str) -> bool:
    """Whether its class has them: objects that stand in for loggers answer to every name."""
    return all(callable(getattr(type(thing), call, None)) for call in calls)
