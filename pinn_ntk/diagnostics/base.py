"""What a diagnostic is: one question about training, asked of a look at every measured step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pinn_ntk.looks.look import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Tag:
    """A family of scalars that a diagnostic logs.

    Attributes:
        pattern: Tag without the first part, such as "trace/<term>"; what stands in <> varies.
        meaning: What it is, in a few words.
        unit: Its unit, where r is that of the residual and theta that of the parameters.
        chart: Title of the chart of the custom scalars tab that shows the family; none if empty.
        advice: How to read it, for the table of the documentation.
    """

    pattern: str
    meaning: str
    unit: str = "1"
    chart: str = ""
    advice: str = ""

    def regex(self, prefix: str) -> str:
        """Regular expression of the tags below a prefix, as TensorBoard's layouts take it."""
        known = re.split(r"<\w+>(?:/<\w+>)*", self.pattern)
        end = "" if self.pattern.endswith(">") else "$"
        return re.escape(prefix) + "/" + ".*".join(map(re.escape, known)) + end


@dataclass(frozen=True)
class Reading:
    """What a diagnostic read at one step.

    Attributes:
        step: Step that it is of, which may lie behind: a forecast is known a step later.
        values: Tag without the first part -> number, logged to all loggers; a tensor of one entry
            becomes a number.
        tensors: Tag -> (n,), largest first, written for TensorBoard's own tab of spectra.
        facts: What else sentences need: plain numbers, strings, lists and dicts of these. Under
            the tag of a tensor, what describes it.
    """

    step: int
    values: Mapping[str, float] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: Mapping[str, Any] = self.values
        plain = {t: v.detach() if isinstance(v, Tensor) else v for t, v in given.items()}
        object.__setattr__(self, "values", {tag: float(value) for tag, value in plain.items()})


Readings = Mapping[str, Reading]
"""Name of a diagnostic -> its last reading; under "step" the facts of the step itself."""


class Diagnostic:
    """One question about training. A subclass overrides what it needs; the rest does nothing.

    Several looks may come in one step, where training takes several losses (manual optimisation).
    Under several processes, rank 0 alone reads, so that nothing collective may be called. What
    raises is reported once, and this diagnostic stays off for that fit.

    Attributes:
        name: Name, for ``NTKMonitor(diagnostics=[...])``; state in checkpoints goes under it.
        title: The same in words, for messages.
        tags: What is logged.
        waits: Whether `follow` is to be called at the next backward pass, due or not.

    Example:
        >>> class LargestResidual(Diagnostic):
        ...     name = "largest_residual"
        ...     tags = (Tag("largest_residual/<term>", "largest entry of the residual", "r"),)
        ...
        ...     def read(self, look):
        ...         largest = {t: r.detach().abs().max() for t, r in look.residuals.items()}
        ...         return Reading(look.step, {f"{self.name}/{t}": x for t, x in largest.items()})
        >>> import torch
        >>> from pinn_ntk import look
        >>> w = torch.ones(2, requires_grad=True)
        >>> LargestResidual().read(look((w - 3).square().mean(), [w], names=["bc"])).values
        {'largest_residual/bc': 2.0}
    """

    name: str = ""
    title: str = ""
    tags: tuple[Tag, ...] = ()
    waits: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "title" not in vars(cls) and cls.name:
            cls.title = f"the {cls.name.replace('_', ' ')}"

    def reset(self) -> None:
        """Another module is trained: forget what was seen of the last one."""

    def fit_starts(self, module: nn.Module, *, resumed: bool) -> None:
        """A fit starts, which may go on from a checkpoint."""

    def batch_starts(self, *, due: bool) -> None:
        """A batch starts, before its forward pass; ``due`` says whether it may be measured."""

    def read(self, look: Look) -> Reading | None:
        """Read a measured step, its graph alive and before the optimizer moves."""

    def stepped(self, look: Look) -> Reading | None:
        """The optimizer has moved the parameters after the first look of a batch; graph gone."""

    def follow(self, look: Look) -> Reading | None:
        """The backward pass that was waited for; a kernel is made only if it is asked for."""

    def points_renewed(self) -> None:
        """From now on the points of the probe are others."""

    def batch_ends(self) -> None:
        """A batch is over: let go of all that belongs to it."""

    def fit_ends(self) -> None:
        """A fit is over: let go of module and parameters."""

    def sentences(self, readings: Readings) -> Iterable[str]:
        """What the last readings say in words; those of other diagnostics may be absent."""
        return ()

    def figure(self) -> tuple[str, Figure] | None:
        """Name and picture of what was read so far, drawn when a fit ends."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from: tensors and plain values only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what another instance gave; empty where it gave nothing."""


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Without NaN and inf."""
    return {tag: value for tag, value in values.items() if math.isfinite(value)}
