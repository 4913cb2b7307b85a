"""Training with a kernel that stands still, in closed form.

| symbol | meaning | shape |
| --- | --- | --- |
| r_a | residual of term ``a``, flattened point by point, row n C + c | (R_a,) |
| D | curvature of the loss, L = 1/2 sum_i D_i r_i^2; 2/N for a mean of squares | (R_a,) |
| g_a | dL/dr_a = D r_a | (R_a,) |
| K_ab | J_a J_b^T | (R_a, R_b) |
| S | D^(1/2) K D^(1/2) over the terms that are trained, S = V Lambda V^T | (R, R) |
| c | V^T D^(1/2) r(0), the residual mode by mode | (R,) |
| p, phi | what is left of a mode, and its reach (propagators.py) | (R,) |

The flow is dr/dt = -K D r, where t is the learning rate times the number of steps. So

    r(t) = D^(-1/2) V p(Lambda, t) c                      on the rows that are trained,
    r_b(t) = r_b(0) - K_b. D^(1/2) V phi(Lambda, t) c     on any others, which have weight 0.

Source: Jacot, Gabriel, Hongler 2018, section 5; Lee et al. 2019 (NeurIPS), section 2.2;
for weighted terms Wang, Yu, Perdikaris 2022, eq. 6.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from pinn_ntk.analysis import propagators
from pinn_ntk.analysis.mode_basis import ModeBasis
from pinn_ntk.analysis.propagators import Propagator, Times
from pinn_ntk.analysis.row_values import row_values
from pinn_ntk.kernel.ntk import NTK, Method
from pinn_ntk.kernel.spectrum import Spectrum

_HINT = (
    "Curvatures come from pinn_ntk.curvature(find_terms(loss)); of a mean of squares they are 2/N."
)


class LinearizedTraining:
    """Training of a model that is linear in its parameters, with the kernel given.

    Exact for such a model; for a network, as good as its kernel stands still (see `laziness` in
    linearized.py). Terms of the kernel that are not trained are predicted through the cross
    kernel: points never seen, or terms without weight. One that has no residual starts from 0, so
    what is predicted of it is its change.

    Args:
        kernel: Kernel at the start of training.
        residuals: Term -> r(0), of any shape with R_a entries.
        curvature: Term -> D, one number or one a row, none negative, as of
            ``pinn_ntk.curvature(find_terms(loss))``; 2/N for a mean of squares over N entries.
        terms: The terms that are trained; those with a curvature when left out.
        method: "fast", from the kernel, or "accurate", from its Jacobian, which resolves twice
            as many decades of rates, for about ten times the time.

    Attributes:
        unseen: Terms that are not trained, but predicted.

    Raises:
        KeyError: A term is not in the kernel.
        TypeError: The curvature is no mapping, or holds something else than numbers.
        ValueError: Nothing is trained, a residual or a curvature is missing, has a wrong shape, is
            not finite or, as to the curvature, negative or None; or there is no such method.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor(1.0, requires_grad=True, dtype=torch.float64)
        >>> r = 2 * w * torch.ones(1, dtype=torch.float64)
        >>> kernel = empirical_ntk({"data": r, "unseen": 3 * r}, [w])
        >>> training = LinearizedTraining(kernel, {"data": r}, {"data": 1.0})
        >>> training.descent(1, lr=0.125)  # w = 1 - 0.125 * 4: r = 1, and 3 r falls by 3
        {'data': tensor([1.], dtype=torch.float64), 'unseen': tensor([-3.], dtype=torch.float64)}
        >>> training.limit()["data"].tolist()
        [0.0]
    """

    def __init__(
        self,
        kernel: NTK,
        residuals: Mapping[str, Tensor],
        curvature: Mapping[str, float | Tensor] | None,
        terms: Iterable[str] | None = None,
        *,
        method: Method = "fast",
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method is {method!r}; expected one of {get_args(Method)}.")
        curvature = _checked(curvature)
        self.kernel, self.method = kernel, method
        self.terms = tuple(dict.fromkeys(curvature if terms is None else terms))
        self.unseen = tuple(term for term in kernel.terms if term not in self.terms)
        self._check_terms(residuals, curvature)
        self._start = {t: row_values(kernel, t, r, "residual") for t, r in residuals.items()}
        self._curvature = {t: _curvature(kernel, t, curvature[t]) for t in self.terms}

    def __repr__(self) -> str:
        rows = {term: self.kernel.rows(term) for term in self.terms}
        return f"LinearizedTraining(rows={rows}, unseen={self.unseen}, method={self.method!r})"

    @cached_property
    def spectrum(self) -> Spectrum:
        """Spectrum of S, with its eigenvectors, over the rows of `terms` one after another."""
        return self._basis.spectrum

    @cached_property
    def rates(self) -> Tensor:
        """Lambda, how fast each mode of the residual falls; 0 below the floor, (R,)."""
        values = self.spectrum.eigenvalues
        return torch.where(values > self.spectrum.floor, values, 0.0)

    @property
    def modes(self) -> Tensor:
        """V, the modes of D^(1/2) r as columns, (R, R)."""
        assert self.spectrum.eigenvectors is not None
        return self.spectrum.eigenvectors

    @cached_property
    def coefficients(self) -> Tensor:
        """c = V^T D^(1/2) r(0), (R,). The loss at the start is half their sum of squares."""
        start = torch.cat([self._start[term] for term in self.terms])
        return self.modes.mT @ (self._root * start)

    def rows(self, term: str) -> slice:
        """Where the rows of a trained term stand among those of `modes`."""
        sizes = [self.kernel.rows(t) for t in self.terms[: self.terms.index(term)]]
        return slice(sum(sizes), sum(sizes) + self.kernel.rows(term))

    def weights(self, term: str) -> Tensor:
        """D of a trained term, (R_a,)."""
        return self._curvature[term]

    def max_stable_lr(self, momentum: float = 0.0) -> float:
        """2 (1 + momentum) / lambda_max, above which descent diverges; inf for a zero kernel."""
        top = self.spectrum.lambda_max
        return 2 * (1 + momentum) / top if top else math.inf

    def flow(self, times: Times) -> dict[str, Tensor]:
        """Residuals after gradient flow: term -> r(t), (*times, R_a), of all terms of the kernel.

        ``times`` is t, one number or several in a tensor, none negative; inf for the end.
        """
        return self.propagated(propagators.flow(self.rates, times, self.spectrum.floor))

    def descent(self, steps: int | Tensor, lr: float, momentum: float = 0.0) -> dict[str, Tensor]:
        """Residuals after steps of gradient descent on the whole batch.

        Term -> r after these steps, (*steps, R_a), of all terms of the kernel. Exact for a model
        that is linear in its parameters, also where it diverges; inf or NaN once that overflows.
        ``steps`` is one number or several in a tensor; ``momentum`` is as of ``torch.optim.SGD``,
        without dampening and Nesterov's form.
        """
        floor = self.spectrum.floor
        return self.propagated(propagators.descent(self.rates, steps, lr, momentum, floor))

    def limit(self, ridge: float = 0.0) -> dict[str, Tensor]:
        """Residuals at the end of training, term -> (R_a,), of all terms of the kernel.

        Modes below the floor stay. ``ridge`` is a factor of 1/2 |theta - theta(0)|^2, added to the
        loss.
        """
        return self.propagated(propagators.limit(self.rates, ridge, self.spectrum.floor))

    def propagated(self, propagator: Propagator) -> dict[str, Tensor]:
        """Residuals of all terms, (*times, R_a), from what is left of the modes and their reach.

        ``propagator`` is one of ``propagators``, of `rates` and the floor of `spectrum`.
        """
        kept, reach = (
            torch.where(self.coefficients == 0, 0.0, part * self.coefficients)  # not 0 * inf
            for part in propagator
        )
        result = {term: self._moved(term, reach) for term in self.unseen}
        return {t: result[t] if t in result else self._trained(t, kept, reach) for t in self.kernel}

    @cached_property
    def _root(self) -> Tensor:
        return torch.cat([self._curvature[term] for term in self.terms]).sqrt()

    @cached_property
    def _basis(self) -> ModeBasis:
        return ModeBasis.of(self.kernel, self.terms, self._root, self.method)

    def _trained(self, term: str, kept: Tensor, reach: Tensor) -> Tensor:
        """By p where D can be divided by, else by phi as any point of weight 0."""
        rows, eps = self.rows(term), torch.finfo(kept.dtype).eps
        root = self._root[rows]
        carries = root.square() > eps * self._root.max() ** 2
        if bool(carries.all()):
            return kept @ self.modes[rows].mT / root
        direct = kept @ self.modes[rows].mT / torch.where(carries, root, 1.0)
        return torch.where(carries, direct, self._moved(term, reach))

    def _moved(self, term: str, reach: Tensor) -> Tensor:
        """By phi, through the cross kernel."""
        start = self._start.get(term)
        change = (reach * self._basis.gains) @ self._basis.followers[term].mT
        return -change if start is None else start - change

    def _check_terms(
        self, residuals: Mapping[str, Tensor], curvature: Mapping[str, object]
    ) -> None:
        known = {*self.terms, *residuals, *curvature}
        if unknown := sorted(known - set(self.kernel.terms)):
            raise KeyError(f"no term {unknown[0]!r} in this kernel; it has {list(self.kernel)}.")
        for term in self.terms:
            if term not in residuals or term not in curvature:
                lacks = "residual" if term not in residuals else "curvature"
                raise ValueError(
                    f"term {term!r} is trained but has no {lacks}; give both for each of "
                    f"{list(self.terms)}, or leave the term out of `terms`."
                )
        if not self.terms:
            raise ValueError("no term is trained; expected the curvature of at least one.")


def _checked(given: Mapping[str, float | Tensor] | None) -> Mapping[str, float | Tensor]:
    """The curvatures, if they are numbers by term."""
    if given is None:
        raise ValueError(
            "no constant curvature: the loss is not a sum of squares with finite weights, none "
            "below 0, such as a Huber or an L1 loss, so that training is not linear in the "
            f"residual even with a kernel that stands still. {_HINT}"
        )
    values: object = given  # annotations are not always kept
    entries = list(values.values()) if isinstance(values, Mapping) else [values]
    wrong = [value for value in entries if not isinstance(value, (int, float, Tensor))]
    if wrong or not isinstance(values, Mapping):
        raise TypeError(
            f"expected curvatures, term -> number or tensor, got {type(values).__name__}"
            f"{f' with {type(wrong[0]).__name__}' if wrong else ''}. {_HINT}"
        )
    return given


def _curvature(kernel: NTK, term: str, values: float | Tensor) -> Tensor:
    given = torch.as_tensor(values, dtype=kernel.jacobian(term).dtype)
    if given.numel() == 1:
        given = given.reshape(-1).expand(kernel.rows(term))
    vector = row_values(kernel, term, given, "curvature")
    if bool((vector < 0).any()):
        raise ValueError(
            f"the curvature of term {term!r} is {float(vector.min())} at its lowest; expected "
            "none negative. Likely slopes dL/dr were given, or the weights of the term are trained "
            f"by a negated loss. {_HINT}"
        )
    return vector
