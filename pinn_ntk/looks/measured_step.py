"""One measured step: what is known of it before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.optim import Optimizer

from pinn_ntk.kernel.bounds import EXACT, MAX_POINTS, Bounds
from pinn_ntk.looks.progress import Progress
from pinn_ntk.looks.rerun import Rerun
from pinn_ntk.looks.step_terms import StepTerms


class StepInputs(Protocol):
    """What a step began from: its batch and the random states."""

    def setting(self, module: nn.Module, trained: Mapping[str, Tensor], *, batch: bool) -> str:
        """Digest of what residuals depend on besides points, trained parameters and chance."""

    def drew_numbers(self, module: nn.Module) -> bool:
        """Whether random numbers were drawn since."""


@dataclass(eq=False, repr=False)
class MeasuredStep:
    """What a look at a step starts from.

    Attributes:
        step: Step as loggers count it.
        found: Residuals of the step and terms of its loss.
        params: Name -> parameter that the kernel is taken over.
        trained: Name -> parameter, all that are trained.
        module: Owner of the parameters; None where there is none.
        loss: The live loss; None where it is not known.
        optimizers: Optimizers of the training.
        balanced: Gives the weights that a balancer puts on gradients: head of a term -> weight.
        balancing: Whether a balancer sets the weights, on gradients or in the loss.
        scale: What the differentiated loss is of the loss as trained on.
        certify: Whether the kernel is checked against ordinary backward passes.
        max_points: Rows of a term above which blocks are formed of evenly strided rows only, and
            a quarter of those of all terms together.
        bounds: What may be taken of time and memory.
        say: Takes what is said of that, by what it is about; warnings where there is none.
        allow: Is told the seconds that rows will take one by one, and may raise to prevent it.
        inputs: What the step began from; None where that was not kept.
        find_again: Runs the user's residual function once more from the same random states; None
            where residuals come from the graph of the loss.
        total_step: Step counted on over several fits.
        rerun: Runs the step again under a changed circumstance; None where it cannot be.
        no_rerun: Why it cannot be, in words.
        earlier: Steps measured before that can be run again: the first, and the last before this.
        progress: What is known of all steps before; None where nothing was kept.
        untrained: What of the loss has no gradient, in words; empty where all has.
    """

    step: int
    found: StepTerms
    params: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]
    module: nn.Module | None = None
    loss: Tensor | None = None
    optimizers: Sequence[Optimizer] = ()
    balanced: Callable[[], Mapping[Node, float]] = dict
    balancing: bool = False
    scale: float = 1.0
    certify: bool = True
    max_points: int = MAX_POINTS
    bounds: Bounds = EXACT
    say: Callable[[str, str], None] | None = None
    allow: Callable[[float], None] = lambda _: None
    inputs: StepInputs | None = None
    find_again: Callable[[], StepTerms] | None = None
    total_step: int = 0
    rerun: Rerun | None = None
    no_rerun: str = ""
    earlier: Sequence[Rerun] = ()
    progress: Progress | None = None
    untrained: str = ""
    kept: dict[str, Any] = field(default_factory=dict)
