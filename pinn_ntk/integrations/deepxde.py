"""NTKCallback: a callback of DeepXDE (PyTorch backend) that reads and rebalances its losses.

DeepXDE tells a callback nothing of the graph that a step made, so the losses are computed once more
on the points of the next step, before it. That is done off the record: random states, gradients,
buffers and DeepXDE's cache of derivatives are afterwards as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from pinn_ntk.diagnostics.history import History
from pinn_ntk.diagnostics.panel import Panel
from pinn_ntk.diagnostics.registry import chosen
from pinn_ntk.errors import ArgumentError, warn
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.make import look
from pinn_ntk.looks.untouched import untouched
from pinn_ntk.verdict.diagnose import diagnose

if TYPE_CHECKING:
    from pinn_ntk.verdict.verdict import Verdict
    from pinn_ntk.weights.balancing import Balancing

READ = ("spectrum", "traces", "weights", "rank", "step_size", "learning_rate", "certificate")
"""What is measured: what can be read of one step."""


def _base() -> type:
    """DeepXDE's own class; a stand-in for reading this module where DeepXDE is not installed."""
    try:
        from deepxde.callbacks import Callback
    except ModuleNotFoundError:
        return object
    return Callback  # type: ignore[no-any-return]


class NTKCallback(_base()):  # type: ignore[misc]
    """Measures the kernels of DeepXDE's losses while it trains, and may rebalance them.

    Give it to ``model.train(..., callbacks=[NTKCallback()])``. Terms are named in DeepXDE's order:
    ``pde`` (``pde_0``, ``pde_1``, ... where there are several equations), then ``bc_0``, ``bc_1``,
    ... for conditions. Weights given to ``model.compile(loss_weights=...)`` are seen as weights.
    Training goes on to the last bit as it would without, unless ``balancing`` is given.

    Measured are the first step, every ``every`` steps and the state at the end. Points that are
    drawn for each step (not those of ``dde.data.PDE``) are measured where the last step had them.

    Args:
        every: Steps between measurements.
        names: Names of the losses, in DeepXDE's order.
        balancing: Sets ``model.loss_weights`` after each measurement; weights given to ``compile``
            are replaced.
        max_points: Rows of a term above which blocks are formed of evenly strided rows only.
        verbose: Print the verdict when training ends.

    Attributes:
        history: Tag -> array of (step, value), tags as those of `NTKMonitor`.
        spectra: Term -> (step, spectrum).
        verdict: The last verdict; ``verdicts`` all of them.
        paths: Term -> "fast", or "rows" where parameters took a backward pass a row.

    Raises:
        ModuleNotFoundError: DeepXDE is not installed.
        ValueError: ``every`` is below 1; in training, ``names`` has the wrong number of names.
        RuntimeError: In training, the backend of DeepXDE is not PyTorch.
    """

    def __init__(
        self,
        every: int = 1000,
        names: Sequence[str] | None = None,
        balancing: Balancing | None = None,
        max_points: int = 512,
        verbose: bool = True,
    ) -> None:
        if NTKCallback.__base__ is object:
            raise ModuleNotFoundError(
                "NTKCallback needs DeepXDE, which is not installed: "
                "pip install 'pinn_ntk[deepxde]'.",
                name="deepxde",
            )
        if every < 1:
            raise ValueError(f"NTKCallback: every is {every}; expected at least 1.")
        super().__init__()
        self.every, self.max_points, self.verbose = every, max_points, verbose
        self.names, self.balancing = names, balancing
        self.history = History()
        self.verdicts: list[Verdict] = []
        self.paths: dict[str, str] = {}
        self._panel = Panel(chosen(READ))
        self._last: int | None = None
        self._failed = False
        self._spent, self._began = 0.0, 0.0

    @property
    def spectra(self) -> dict[str, list[Any]]:
        """Term -> (step, spectrum)."""
        return self._panel.diagnostics["spectrum"].spectra  # type: ignore[attr-defined,no-any-return]

    @property
    def verdict(self) -> Verdict | None:
        """Why training does not go on, at the last measurement."""
        return self.verdicts[-1] if self.verdicts else None

    def init(self) -> None:
        """A model is set: it has to be of the PyTorch backend."""
        from deepxde.backend import backend_name

        if backend_name != "pytorch":
            raise RuntimeError(
                f"NTKCallback reads PyTorch graphs, but DeepXDE's backend is {backend_name!r}; set "
                "DDE_BACKEND=pytorch before DeepXDE is imported."
            )

    def on_train_begin(self) -> None:
        """The clock starts, and the first step is due."""
        self._last, self._spent, self._began = None, 0.0, perf_counter()
        self._failed = False

    def on_batch_begin(self) -> None:
        """Measure the step that comes, if that is due; L-BFGS counts many steps as one batch."""
        step = self.model.train_state.step
        if self._last is None or step - self._last >= self.every:
            self._measure(step)

    def on_train_end(self) -> None:
        """Measure where training ended, and say what is wrong."""
        self._measure(self.model.train_state.step, rebalance=False)
        if self.verbose and self.verdict is not None:
            print(f"\nVerdict at step {self.verdict.step}: {self.verdict}")

    def _measure(self, step: int, *, rebalance: bool = True) -> None:
        """Measure, or warn once and go quiet: a diagnostic never ends a training."""
        self._last = step
        if self._failed:
            return
        try:
            self._read(step, rebalance=rebalance)
        except ArgumentError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised, training goes on
            self._failed = True
            warn(
                f"NTKCallback: the measurement at step {step} failed with {type(error).__name__}: "
                f"{error}. Training goes on as it is; nothing more is measured or rebalanced.",
                stacklevel=3,
            )

    def _read(self, step: int, *, rebalance: bool) -> None:
        start = perf_counter()
        with self._losses(step) as found:
            self.paths = {
                t: "rows" if found.kernel.jacobian(t).fallbacks else "fast" for t in found.residuals
            }
            self.verdicts.append(diagnose(found, previous=self.verdicts))
            values = {"verdict": float(self.verdicts[-1].cause.value)}
            for reading in self._panel.read(found):
                values |= reading.values
            if self.balancing is not None and rebalance:
                self._weigh(self.balancing.update(found))
                values |= {f"weight/{t}": w for t, w in self.balancing.weights.items()}
        self._spent += perf_counter() - start
        values["overhead_fraction"] = self._spent / (perf_counter() - self._began)
        self.history.add(step, {f"ntk/{tag}": value for tag, value in values.items()})

    @contextmanager
    def _losses(self, step: int) -> Iterator[Look]:
        """A look at the losses on the points of this step, of which no trace is left."""
        model = self.model
        with untouched(model.net), torch.enable_grad(), _as_it_was(model):
            losses = model.outputs_losses_train(*_points(model))[1]
            names = self._named(len(losses))
            found = look(
                losses.sum(),
                [*model.net.parameters(), *(model.external_trainable_variables or [])],
                names=names,
                optimizer=model.opt,
                step=step,
                max_points=self.max_points,
            )
            try:
                yield found
            finally:
                found.close()

    def _named(self, losses: int) -> list[str]:
        if self.names is not None:
            if len(self.names) != losses:
                raise ArgumentError(
                    f"NTKCallback: names is {list(self.names)}, but DeepXDE has {losses} losses."
                )
            return list(self.names)
        conditions = min(len(getattr(self.model.data, "bcs", [])), losses)
        return [*_numbered("pde", losses - conditions), *_numbered("bc", conditions, always=True)]

    def _weigh(self, weights: Mapping[str, float]) -> None:
        """Weights of all losses, in DeepXDE's order; it reads them anew in each step."""
        self.model.loss_weights = [weights[name] for name in self._named(len(weights))]


def _numbered(name: str, count: int, *, always: bool = False) -> list[str]:
    return [name] if count == 1 and not always else [f"{name}_{i}" for i in range(count)]


def _points(model: Any) -> tuple[Any, Any, Any]:
    """Points of the coming step; where those are drawn for each step, of the last one."""
    from deepxde.data import PDE

    data, state = model.data, model.train_state
    if isinstance(data, PDE):  # these stay, or were resampled at the end of the last step
        return data.train_x, data.train_y, data.train_aux_vars
    return state.X_train, state.y_train, state.train_aux_vars


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Mode and auxiliary variables of the network stay, and no derivative in DeepXDE's cache."""
    from deepxde import gradients

    training, auxiliary = model.net.training, getattr(model.net, "auxiliary_vars", None)
    try:
        yield
    finally:
        model.net.train(training)
        model.net.auxiliary_vars = auxiliary
        gradients.clear()
