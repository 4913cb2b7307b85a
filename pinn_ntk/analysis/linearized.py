"""A network replaced by its first-order expansion in the parameters, and how far it is from it.

| symbol | meaning | shape |
| --- | --- | --- |
| theta, theta_0 | trained parameters now and at the start | (P,) |
| f(x; theta) | output of the network | (N, C) |
| f_lin(x; theta) | f(x; theta_0) + J(x) (theta - theta_0), J = df/dtheta at theta_0 | (N, C) |

The kernel of f_lin never changes, so linearised training (dynamics.py) is exact for it. A network
in the lazy regime stays near its f_lin: ||f - f_lin|| << ||f - f_0||.

Source: Lee et al. 2019 (NeurIPS), section 2.2; Chizat, Oyallon, Bach 2019 (NeurIPS), section 1, for
lazy training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pinn_ntk.analysis.row_values import row_values
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.ntk import NTK


class LinearizedModel:
    """f_lin of a model, around the parameters it has when this object is made.

    It is differentiable in the inputs as often as the model is, so that residuals of f_lin can be
    formed, and in theta, so that it can be trained. Frozen parameters and buffers keep the values
    of the start. Layers that draw random numbers or use statistics of the batch have no fixed
    f_lin: call ``model.eval()`` first.

    Args:
        model: The network; it stays as it is, and its parameters are read at each call.

    Attributes:
        start: Name -> theta_0, copies of the parameters that require a gradient.

    Raises:
        ValueError: The model has no trainable parameter.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
        >>> _ = nn.init.constant_(model[0].weight, 0.0)
        >>> linearized, x = LinearizedModel(model), torch.tensor([[0.5]])
        >>> _ = nn.init.constant_(model[0].weight, 2.0)
        >>> model(x).item(), linearized(x).item()  # tanh(2 x) and 2 x
        (0.7615941762924194, 1.0)
        >>> round(linearized.distance(x), 4)  # |0.7616 - 1| / |0.7616 - 0|
        0.313
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.start = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }
        if not self.start:
            raise ValueError(
                "the model has no trainable parameter: expected at least one with "
                "requires_grad=True. Likely everything is frozen."
            )
        fixed = [*model.named_parameters(), *model.named_buffers()]
        self._fixed = {n: t.detach().clone() for n, t in fixed if n not in self.start}

    def __call__(self, *inputs: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """f_lin(x; theta), of the shape of the model's output.

        ``inputs`` are what the model is called with; ``parameters`` are theta, for the names of
        ``start``, or what the model has now when left out. Gradients flow to them.

        Raises:
            TypeError: The model returns something else than one tensor.
            ValueError: A parameter is missing, unknown or of another shape.
        """
        recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            expanded = self._expanded(inputs, self.displacement(parameters))
        return expanded if recorded else expanded.detach()

    def at_start(self, *inputs: Tensor) -> Tensor:
        """f(x; theta_0) with the buffers of the start; inputs, shape and TypeError as of a call."""
        return self._network(self.start, inputs)

    def displacement(self, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """theta - theta_0, name by name, with the gradient of theta; ValueError as of a call."""
        if parameters is None:
            live = dict(self.model.named_parameters())
            parameters = {name: live[name] for name in self.start if name in live}
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        expected = {name: tuple(p.shape) for name, p in self.start.items()}
        if shapes != expected:
            differing = sorted(n for n in {*shapes, *expected} if shapes.get(n) != expected.get(n))
            raise ValueError(
                f"the parameters differ from those at the start in {differing}: expected the "
                f"shapes {expected}, got {shapes}. Likely the model was changed meanwhile."
            )
        return {name: parameters[name] - p.to(parameters[name]) for name, p in self.start.items()}

    @torch.no_grad()
    def distance(self, *inputs: Tensor) -> float:
        """Laziness ||f - f_lin|| / ||f - f_0|| of the model as it is now.

        0 for a model that is linear in its parameters, near 0 in the lazy regime; NaN before the
        output has moved. Inputs and errors as of a call.
        """
        linearized, start = self(*inputs), self.at_start(*inputs)
        return laziness(self.model(*inputs), linearized, start)

    def _expanded(self, inputs: tuple[Tensor, ...], tangent: dict[str, Tensor]) -> Tensor:
        """f_0 + J tangent: J^T v is linear in v, so its derivative in v gives J times a vector."""
        leaves = {name: p.clone().requires_grad_() for name, p in self.start.items()}
        output = self._network(leaves, inputs)
        if not output.requires_grad:
            return output
        v = torch.zeros_like(output, requires_grad=True)
        options = {"create_graph": True, "allow_unused": True}
        pulled = torch.autograd.grad(output, list(leaves.values()), v, **options)
        used = [(g, tangent[n].to(g)) for n, g in zip(leaves, pulled, strict=True) if g is not None]
        if not used:
            return output
        gradients, directions = zip(*used, strict=True)
        return output + torch.autograd.grad(gradients, v, directions, create_graph=True)[0]

    def _network(self, parameters: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        values = {name: tensor.clone() for name, tensor in self._fixed.items()} | dict(parameters)
        given = {place: values[name] for place, name in _places(self.model) if name in values}
        # ties are in the places; tied by torch, a layer under two names is left with copies
        output: object = functional_call(self.model, given, inputs, tie_weights=False)
        if isinstance(output, Tensor):
            return output
        raise TypeError(
            f"the model returns {type(output).__name__}; expected one tensor. Wrap it in a module "
            "whose forward picks or concatenates the outputs to be linearised."
        )


def _places(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each place of a parameter or buffer, named once, and the name that the model gives it."""
    every = [*model.named_parameters(), *model.named_buffers()]
    names = {id(tensor): name for name, tensor in every}
    for path, module in model.named_modules():
        held = [
            *module.named_parameters(path, recurse=False, remove_duplicate=False),
            *module.named_buffers(path, recurse=False, remove_duplicate=False),
        ]
        yield from ((place, names[id(tensor)]) for place, tensor in held)


def laziness(now: Tensor, linearized: Tensor, start: Tensor) -> float:
    """||f - f_lin|| / ||f - f_0||, of outputs or residuals: 0 where training is lazy.

    NaN where nothing has moved.

    >>> laziness(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.5]), torch.zeros(2))
    0.1
    """
    if not now.shape == linearized.shape == start.shape:
        raise ValueError(
            f"expected three tensors of one shape, got {tuple(now.shape)}, "
            f"{tuple(linearized.shape)} and {tuple(start.shape)}; they would be broadcast."
        )
    moved = float((now - start).norm())
    return float((now - linearized).norm()) / moved if moved else math.nan


def linearized_residuals(
    kernel: NTK, residuals: Mapping[str, Tensor], displacement: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """r_a(theta_0) + J_a (theta - theta_0), (R_a,), by the Jacobians of a kernel.

    ``kernel`` and ``residuals`` are those at theta_0. ``displacement`` maps names of parameters to
    theta - theta_0, as `LinearizedModel.displacement` does; one that is absent stands still.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(3.0, requires_grad=True)
    >>> r = w ** 2
    >>> linearized_residuals(empirical_ntk(r, {"w": w}), {"residual": r}, {"w": w - 2.5})
    {'residual': tensor([12.], dtype=torch.float64)}
    """
    moved = {}
    for term, residual in residuals.items():
        jacobian = kernel.jacobian(term)
        vector = _flattened(jacobian, displacement)
        start = row_values(kernel, term, residual, "residual", finite=False)
        moved[term] = start + jacobian.matvec(vector)
    return moved


def _flattened(jacobian: FactoredJacobian, displacement: Mapping[str, Tensor]) -> Tensor:
    """The displacement in the order of the columns, (P,)."""
    sizes = jacobian.sizes
    wrong = [n for n, d in displacement.items() if sizes.get(n) != d.numel()]
    if wrong:
        raise ValueError(
            f"the kernel has no parameter {wrong[0]!r} with {displacement[wrong[0]].numel()} "
            f"entries; it has {dict(sizes)}. Take the kernel with respect to the model itself, "
            "not to model.parameters(), so that names agree."
        )
    parts = [displacement.get(name, torch.zeros(size)) for name, size in sizes.items()]
    return torch.cat([part.detach().double().reshape(-1).to(jacobian.device) for part in parts])
