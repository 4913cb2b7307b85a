"""Names as the user knows them: loss terms by ``self.log`` keys, parameters by module paths."""

from __future__ import annotations

from dataclasses import replace
from numbers import Number
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from pinn_ntk.graph.terms import Term, find_terms


class LogRecorder:
    """What a LightningModule gave to ``self.log`` (and ``log_dict``) in the running step.

    Attributes:
        logged: Key -> tensor or number as it was given, alive where the user logged it so.
    """

    def __init__(self) -> None:
        """Record nothing yet; see `attach`."""
        self.logged: dict[str, Tensor | float] = {}
        self._names: dict[tuple[Any, ...], dict[int, str]] = {}
        self._log: _RecordingLog | None = None

    def attach(self, module: pl.LightningModule) -> None:
        """Listen to ``module.log``. Several recorders may listen to one module."""
        self.detach()
        log = vars(module).get("log")
        if not isinstance(log, _RecordingLog):
            log = vars(module)["log"] = _RecordingLog(module)
        log.recorders.append(self)
        self._log = log

    def detach(self) -> None:
        """Stop listening; the last recorder to go leaves the module as it was found."""
        self.logged.clear()
        if self._log is not None:
            self._log.recorders.remove(self)
            self._log.restore()
            self._log = None

    def terms(self, loss: Tensor, *, check: bool) -> dict[str, Term]:
        """The terms of a loss, named after the keys under which they are logged.

        A term that this step does not log keeps the name that it had in the last step whose terms
        were of the same kinds and shapes: modules may log every n-th step only.

        Args:
            loss: The live loss.
            check: As in `pinn_ntk.find_terms`.

        Returns:
            Name -> term.
        """
        terms = list(find_terms(loss, names=self.logged, check=check).values())
        likeness = tuple((term.kind, term.residual.shape) for term in terms)
        known = self._names.setdefault(likeness, {})
        names = [term.name for term in terms]
        for position, name in enumerate(names):
            if name != f"term_{position}":
                known[position] = name
            elif known.get(position) not in {None, *names}:
                names[position] = known[position]
        return {n: replace(term, name=n) for n, term in zip(names, terms, strict=True)}


class _RecordingLog:
    """``module.log`` that also tells recorders what it was given, and changes nothing else."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.module = module
        self.own = vars(module).get("log")  # set on the instance by somebody else
        self.log = module.log
        self.recorders: list[LogRecorder] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(("name", "value"), args, strict=False)) | kwargs
        if isinstance(given.get("value"), Tensor | Number) and "name" in given:
            for recorder in self.recorders:
                recorder.logged[given["name"]] = given["value"]
        return self.log(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # A copied or pickled module logs as before; live graphs do not come along.
        return vars(self) | {"recorders": []}

    def restore(self) -> None:
        """Take this off the module if nobody listens and nobody has wrapped it in turn."""
        attributes = vars(self.module)
        if self.recorders or attributes.get("log") is not self:
            return
        if self.own is None:
            del attributes["log"]
        else:
            attributes["log"] = self.own


def named_params(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Tensor]:
    """What the trainer's optimizers train, each tensor once, under its name in the module.

    Args:
        trainer: Owner of the optimizers.
        module: Owner of the names.

    Returns:
        Name -> parameter, in the order of the optimizers. A tensor that the module does not own is
        called ``optimizer_<i>.param_<j>``.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found: dict[int, tuple[str, Tensor]] = {}
    for i, optimizer in enumerate(trainer.optimizers):
        tensors = [p for group in optimizer.param_groups for p in group["params"]]
        for j, tensor in enumerate(tensors):
            name = names.get(id(tensor), f"optimizer_{i}.param_{j}")
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())
