"""Loss weights that the loss itself holds, for optimizers that read it.

`NTKBalancer` weights gradients, which leaves the value of the loss as it was. A line search, as in
L-BFGS, compares values and needs both to agree: there the ``training_step`` multiplies the weights
on with `LossWeights`, and the balancer only sets them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pinn_ntk.taps import tell_weighted


class LossWeights(nn.Module):
    """Weights lambda_a of the terms of a loss, sum_a lambda_a L_a; in checkpoints, not trained.

    Args:
        names: Name of each term, in any order.
        initial: Term -> weight to start from; 1 for those that are not given.

    The buffer ``values`` holds the weights, shape (n,), in the default dtype. A step may call it
    several times, as for each domain, and a module may hold several: `NTKBalancer` gives a name the
    same weight in all, from the traces of all terms that are weighed by that name.

    Raises:
        ValueError: No names, one name twice, an unknown one in ``initial``, or a weight that is
            not finite and positive.

    Example:
        >>> weights = LossWeights(["pde", "bc"], initial={"bc": 10.0})
        >>> losses = {"pde": torch.tensor(0.5), "bc": torch.tensor(0.25)}
        >>> weights(losses)
        tensor(3.)
        >>> weights.update({"pde": 4.0})
        >>> weights(losses), weights.as_dict()
        (tensor(4.5000), {'pde': 4.0, 'bc': 10.0})
    """

    values: Tensor

    def __init__(self, names: Iterable[str], initial: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if isinstance(names, str):
            raise ValueError(
                f"LossWeights: names is {names!r}; expected a list, as in [{names!r}]."
            )
        self.names = tuple(names)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"LossWeights: names is {self.names!r}; expected distinct names.")
        self.register_buffer("values", torch.ones(len(self.names)))
        unknown = [name for name in initial or {} if name not in self.names]
        if unknown:
            raise ValueError(f"LossWeights: initial has {unknown}; the names are {self.names}.")
        self.update(initial or {})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """sum_a lambda_a L_a over the terms given, one number each, in their order.

        Raises:
            KeyError: A term has no weight here.
            ValueError: There is no term, or one that is not a single number.
        """
        if not losses:
            raise ValueError(f"LossWeights got no loss terms; expected some of {self.names}.")
        weighted = []
        for name, loss in losses.items():
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(
                    f"LossWeights expects every term as a tensor of one number, but {name!r} is "
                    f"{shape}; reduce the residual first, as in residual.square().mean()."
                )
            weighted.append(self[name] * loss)
            tell_weighted(name, loss)
        return sum(weighted[1:], start=weighted[0])

    def __getitem__(self, name: str) -> Tensor:
        # A clone, because `update` changes `values` while graphs that saved the weight are alive.
        return self.values[self._index(name)].clone()

    def update(self, weights: Mapping[str, float]) -> None:
        """Set weights lambda_a in place; terms that are not given keep theirs.

        Graphs made before keep the weights that they were made with.

        Raises:
            KeyError: A term has no weight here; nothing is changed.
            ValueError: A weight is not finite and positive in the dtype of `values`; nothing is
                changed.
        """
        new = self.values.tolist()
        for name, weight in weights.items():
            new[self._index(name)] = float(weight)
        converted = torch.tensor(new, dtype=self.values.dtype).tolist()
        for name, weight in weights.items():
            kept = converted[self._index(name)]
            if not (kept > 0 and math.isfinite(kept)):
                raise ValueError(
                    f"LossWeights: the weight of {name!r} is {weight!r}, {kept} in "
                    f"{self.values.dtype}; expected a finite positive number."
                )
        with torch.no_grad():
            self.values.copy_(torch.tensor(new, dtype=self.values.dtype))

    def as_dict(self) -> dict[str, float]:
        """Term -> lambda_a."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def extra_repr(self) -> str:
        """The weights, for ``print(module)``."""
        return ", ".join(f"{name}={weight:.4g}" for name, weight in self.as_dict().items())

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(f"LossWeights has no term {name!r}; it has {self.names}")
        return self.names.index(name)
