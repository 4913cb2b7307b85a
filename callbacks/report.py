"""What is told of a fit: scalars at each measurement, words at the first and the last."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from pinn_ntk.callbacks.log_writer import LogWriter
from pinn_ntk.callbacks.trainer import announcement
from pinn_ntk.callbacks.trainer.flavours import rank_zero_info
from pinn_ntk.callbacks.trainer.loggers import log_figure, log_layout, log_text, takes_figures
from pinn_ntk.callbacks.trainer.state import StatefulCallback, callbacks_of
from pinn_ntk.callbacks.trainer.steps import last_step
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Tag
from pinn_ntk.diagnostics.panel import Panel
from pinn_ntk.diagnostics.verdict import in_markdown
from pinn_ntk.verdict.cause import Cause

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from pinn_ntk.callbacks.base import KernelCallback
    from pinn_ntk.kernel.spectrum import Spectrum
    from pinn_ntk.looks.look import Look
    from pinn_ntk.verdict.verdict import Verdict

WEIGHT = Tag(
    "weight/<term>",
    "weight lambda_a that the balancer puts on the term",
    chart="loss weights",
    advice="It should settle. One that grows through the run means that the kernel moves.",
)

WEIGHT_ERROR = Tag(
    "weight_error/<term>",
    "its standard error, where rows were left out",
    advice="See `ntk/trace_error/<term>`.",
)


SAID_BY = {
    Cause.DETACHED: ("untrained",),
    Cause.DIVERGED: ("undefined", "untrained"),
    Cause.BROADCAST: ("spread {about}",),
}
"""What warnings of ours on the same cause are called, which a second one is not to follow."""


OVERHEAD = Tag(
    "overhead_fraction",
    "share of the fit's wall time spent in NTK callbacks",
    advice="Falls as training goes on. See below.",
)


class Read:
    """What can be read of a callback that has a panel."""

    panel: Panel

    @property
    def spectra(self) -> dict[str, list[tuple[int, Spectrum]]]:
        """Term -> (step, spectrum)."""
        return getattr(self.panel.diagnostics.get("spectrum"), "spectra", {})

    @property
    def verdict(self) -> Verdict | None:
        """Why training does not go on, at the last measurement; None without one."""
        return getattr(self.panel.diagnostics.get("verdict"), "verdict", None)

    @property
    def verdicts(self) -> list[tuple[int, Verdict]]:
        """Step and verdict of all measurements."""
        return getattr(self.panel.diagnostics.get("verdict"), "verdicts", [])


class Report(Read):
    """Logs the readings of a panel, its summary and its figures."""

    def __init__(self, writer: LogWriter, panel: Panel, further: Iterable[Tag]) -> None:
        self.writer, self.panel, self.guard = writer, panel, writer.guard
        self._further = list(further)
        self.restart()

    def restart(self) -> None:
        """A fit starts."""
        self.values: dict[str, float] = {}  # tag -> number, of the running step
        self._last: int | None = None
        self._told: int | None = None
        self._verdict: tuple[int, Cause] | None = None  # that was told last

    def measured(self, trainer: pl.Trainer, step: int, readings: Iterable[Reading]) -> None:
        """A step was measured."""
        first, self._last = self._last is None, step
        self.late(trainer, readings)
        if first:
            tags = [tag for diagnostic in self.panel for tag in diagnostic.tags] + self._further
            layout = partial(log_layout, trainer, tags, self.writer.prefix)
            self.guard.run("logging the layout", layout)
            self._tell(trainer, step)
        self._judged(trainer, step)

    def late(self, trainer: pl.Trainer, readings: Iterable[Reading]) -> None:
        """Something came to be known of a step, be it one that lies behind."""
        self.values |= self.writer.keep(trainer, readings)

    def conclude(self, trainer: pl.Trainer) -> None:
        """The last summary and the figures, once a fit, if anything was measured."""
        last, self._last = self._last, None
        if last is None:
            return
        if last != self._told:
            self._tell(trainer, last)
        self._tell_verdict(trainer, last)
        if not self.guard.run("asking for loggers", partial(takes_figures, trainer)):
            return
        draws = {d.title: partial(self._draw, trainer, d, last) for d in self.panel}
        drawn = [self.guard.run(f"the figure of {title}", draw) for title, draw in draws.items()]
        if False in drawn:
            rank_zero_info("NTKMonitor: no figures without matplotlib; pip install it.")

    def _tell(self, trainer: pl.Trainer, step: int) -> None:
        def write() -> None:
            log_text(trainer, f"{self.writer.prefix}/summary", self.panel.summary(), step)

        self._told = step
        self.guard.run("the summary", write)

    def _judged(self, trainer: pl.Trainer, step: int) -> None:
        """Tell a verdict at the first measurement and where the cause is another one."""
        verdict = self.verdict
        if verdict is None:
            return
        if self._verdict is None or self._verdict[1] != verdict.cause:
            self._tell_verdict(trainer, step)
        names = SAID_BY.get(verdict.cause, (verdict.title,))
        known = [name.format(about=verdict.about) for name in names]
        if verdict.worthless and not any(map(self.guard.said, known)):
            said = " ".join(f"{line.rstrip('.')}." for line in verdict.lines()[:3])
            self.guard.tell_once(f"{self.guard.owner}: at step {step}: {said}", known[0])

    def _tell_verdict(self, trainer: pl.Trainer, step: int) -> None:
        verdict = self.verdict
        if verdict is None or self._verdict == (step, verdict.cause):
            return
        self._verdict = step, verdict.cause
        text = "\n".join(in_markdown(verdict))
        write = partial(log_text, trainer, f"{self.writer.prefix}/verdict", text, step)
        self.guard.run("the text of the verdict", write)

    def _draw(self, trainer: pl.Trainer, diagnostic: Diagnostic, step: int) -> bool:
        """Whether matplotlib is there, as far as it is needed."""
        try:
            drawn = diagnostic.figure()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            return False
        if drawn is not None:
            name, figure = drawn
            log_figure(trainer, f"{self.writer.prefix}/figure/{name}", figure, step)
        return True


def overhead(trainer: pl.Trainer, callback: KernelCallback) -> float:
    """Share of the fit's wall time that was spent in callbacks of this package."""
    spent = sum(one.guard.seconds for one in _everyone(trainer, callback))
    return spent / callback.guard.elapsed()


def announce_start(trainer: pl.Trainer, callback: KernelCallback, look: Look) -> None:
    """Say once a fit what it is going to be; all callbacks together, when the first one looks."""
    active = [one for one in _everyone(trainer, callback) if one.active and one.verbose]
    if not active or "start" in callback.guard.told:
        return
    callback.guard.told.add("start")
    last = last_step(trainer)
    timing = announcement.timing
    plans = [(_owner(c, active), f"{c.plan} {timing(c.schedule, last, c.ends)}") for c in active]
    if not any(hasattr(c, "weights") for c in active):
        plans[-1] = plans[-1][0], f"{plans[-1][1]}, no weights set"
    rows = {name: residual.numel() for name, residual in look.found.residuals.items()}
    announcement.say(announcement.start_line(rows, plans, announcement.places(trainer)))


def announce_end(trainer: pl.Trainer, callback: KernelCallback) -> None:
    """Say what a fit was, when the last callback concludes."""
    everyone = _everyone(trainer, callback)
    active = [c for c in everyone if c.active and c._fitting and c.verbose]
    if callback is not everyone[-1] or not active:
        return
    done = [announcement.Done(_owner(c, active), c.act, c.acts) for c in active]
    weights = [getattr(c, "weights", {}) for c in active if c.acts]
    share = overhead(trainer, callback)
    announcement.say(announcement.end_line(done, dict(ChainMap(*weights)), share))
    verdicts = [(c, getattr(c, "verdict", None)) for c in active if c.acts]
    told = [(c, verdict) for c, verdict in verdicts if verdict is not None]
    for monitor, verdict in told:
        owner = f" ({monitor.writer.prefix})" if told[1:] else ""
        announcement.say(announcement.verdict_lines(verdict.step, verdict.lines(), owner))


def _owner(callback: KernelCallback, active: Iterable[KernelCallback]) -> str:
    """Its class, and its prefix where there are several of that."""
    name = callback.guard.owner
    several = sum(one.guard.owner == name for one in active) > 1
    return f"{name} ({callback.writer.prefix})" if several else name


def _everyone(trainer: pl.Trainer, callback: KernelCallback) -> list[KernelCallback]:
    """Our callbacks of a trainer, this one included."""
    return callbacks_of(trainer, StatefulCallback, callback)  # type: ignore[arg-type]
