"""What the modes of linearised training say of it: what is learned, when, and what never.

| symbol | meaning | shape |
| --- | --- | --- |
| lambda_k | rate of mode k, largest first; 0 below the noise floor | (R,) |
| v_k | the mode, D^(1/2) r = sum_k c_k v_k | (R,) |
| c_k | its coefficient, so that the loss L = 1/2 sum_i D_i r_i^2 = 1/2 sum_k c_k^2 | (R,) |

In the flow c_k falls as exp(-lambda_k t), in gradient descent as (1 - lr lambda_k)^n; dynamics.py
has the rest of the notation. "Never" is what the kernel cannot resolve in its dtype: a mode whose
rate lies below the floor may still fall, but more slowly than at R eps lambda_max.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from pinn_ntk.analysis import propagators
from pinn_ntk.analysis.arrival import LossCurve, check_trained, time_to_loss
from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.propagators import Propagator, Times


@dataclass(frozen=True)
class Mode:
    """One mode of the residual."""

    index: int  # its place, 0 for the fastest
    rate: float  # lambda, one over the time in which the mode falls to 1/e
    share: float  # of the loss at the start
    terms: dict[str, float]  # term -> share of the mode that lies in its rows; they sum to 1


@dataclass(frozen=True, eq=False)
class Modes:
    """The modes of a linearised ``training``, fastest first; TypeError for anything else.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor([0.0, 0.0], requires_grad=True, dtype=torch.float64)
        >>> kernel = empirical_ntk(torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double() @ w, [w])
        >>> start = torch.tensor([1.0, 3.0])
        >>> modes = Modes(LinearizedTraining(kernel, {"residual": start}, {"residual": 1.0}))
        >>> modes.rates.tolist(), [round(share, 6) for share in modes.shares.tolist()]
        ([4.0, 1.0], [0.1, 0.9])
        >>> round(modes.loss, 6), round(modes.time_to(loss=0.5), 4)  # 4.5 exp(-2 t) = 0.5
        (5.0, 1.0987)
        >>> modes.steps_to(loss=0.5, lr=0.25)  # 4.5 * 0.75^(2 n) <= 0.5
        4.0
    """

    training: LinearizedTraining

    def __post_init__(self) -> None:
        given: object = self.training
        if not isinstance(given, LinearizedTraining):
            raise TypeError(
                f"expected a LinearizedTraining, got {type(given).__name__}. Modes need the "
                "residuals and the curvature of the loss beside the kernel: "
                "Modes(LinearizedTraining(kernel, residuals, curvature))."
            )

    def __repr__(self) -> str:
        """How many there are, without computing them."""
        rows = sum(self.training.kernel.rows(term) for term in self.training.terms)
        return f"Modes({rows} of the terms {list(self.training.terms)})"

    def __len__(self) -> int:
        return len(self.rates)

    def __getitem__(self, index: int) -> Mode:
        place = range(len(self))[index]
        terms = {term: float(share[place]) for term, share in self.location.items()}
        return Mode(place, float(self.rates[place]), float(self.shares[place]), terms)

    @property
    def rates(self) -> Tensor:
        """lambda, (R,)."""
        return self.training.rates

    @property
    def slowest(self) -> Mode | None:
        """The slowest mode above the floor; None for a zero kernel."""
        moving = int((self.rates > 0).sum())
        return self[moving - 1] if moving else None

    @property
    def loss(self) -> float:
        """L at the start, summed over terms."""
        return float(self._energies.sum())

    @property
    def unlearnable(self) -> float:
        """The part of L that stays for ever: that of the modes below the floor."""
        return float(self._energies[self.rates == 0].sum())

    @property
    def shares(self) -> Tensor:
        """Share of each mode in L at the start, (R,); NaN where that is 0."""
        return self._energies / self._energies.sum()

    @cached_property
    def location(self) -> dict[str, Tensor]:
        """Term -> share of each mode that lies in its rows, (R,); the terms sum to 1."""
        rows = {term: self.training.rows(term) for term in self.training.terms}
        return {term: self.training.modes[part].square().sum(0) for term, part in rows.items()}

    def times(self, tolerance: float = 0.01) -> Tensor:
        """Time of the flow until each mode is down to a fraction of the whole residual, (R,).

        0 for a mode that starts below, inf for one that never gets there. ``tolerance`` is
        |c_k(t)| over |D^(1/2) r(0)|, the root of twice the loss at the start; ValueError where it
        is not positive.
        """
        return self._until(tolerance, self.rates)

    def steps(self, lr: float, tolerance: float = 0.01) -> Tensor:
        """Steps of gradient descent until each mode is down to a fraction of the whole residual.

        Whole numbers, (R,) as floats; 0 for a mode that starts below and does not grow, inf for one
        that never gets there or that grows. ``tolerance`` is as in `times`; ValueError where it or
        the learning rate ``lr`` is not positive.
        """
        return self._until(tolerance, self._decrements(lr)).ceil()

    def losses(self, times: Times) -> dict[str, Tensor]:
        """Loss of each term in the course of the flow: 1/2 sum_i D_i r_i^2 of its rows, (*times,).

        ``times`` is t, one number or several in a tensor.
        """
        return self._curves(propagators.flow(self.rates, times))

    def losses_at(self, steps: int | Tensor, lr: float, momentum: float = 0.0) -> dict[str, Tensor]:
        """Loss of each term in the course of gradient descent, as of `losses`, (*steps,).

        ``steps`` is one number or several in a tensor, ``momentum`` as of ``torch.optim.SGD``.
        """
        return self._curves(propagators.descent(self.rates, steps, lr, momentum))

    def time_to(self, loss: float, term: str | None = None) -> float:
        """Time of the flow from which on the loss stays at a value or below.

        The sum over terms only falls; the loss of one of them may rise in between, which is looked
        for on times 3 % apart. ``loss`` is the value to reach, of L, the sum over all that are
        trained, or of the loss of ``term``. 0 where the loss starts there and stays, inf where it
        ends above, which `unlearnable` and ``losses(math.inf)`` tell.

        Raises:
            KeyError: The term is not trained.
            ValueError: ``loss`` is NaN.
        """
        early = 0.01 / float(self.rates[0]) if self.rates[0] > 0 else 1.0
        flow = partial(propagators.flow, self.rates)
        return time_to_loss(self.training, loss, term, self.rates, flow, early)

    def steps_to(self, loss: float, lr: float, term: str | None = None) -> float:
        """Steps of gradient descent from which on the loss stays at a value or below.

        A whole number, to the rounding of float64; as in `time_to`, and inf where a mode diverges,
        of whichever term. ``lr`` is the learning rate.

        Raises:
            KeyError: The term is not trained.
            ValueError: ``lr`` is not positive, or ``loss`` is NaN.

        Example:
            >>> from pinn_ntk import empirical_ntk
            >>> w = torch.tensor([0.0, 0.0], requires_grad=True, dtype=torch.float64)
            >>> kernel = empirical_ntk({"pde": 2 * w[:1], "bc": w[1:]}, [w])
            >>> start = {"pde": torch.ones(1), "bc": 3 * torch.ones(1)}
            >>> modes = Modes(LinearizedTraining(kernel, start, {"pde": 1.0, "bc": 1.0}))
            >>> modes.steps_to(0.1, lr=0.1, term="pde")  # 0.5 * 0.6^(2 n) <= 0.1
            2.0
            >>> modes.steps_to(0.1, lr=0.1, term="bc")  # 4.5 * 0.9^(2 n) <= 0.1
            19.0
        """
        decrements = self._decrements(lr)
        descent = partial(propagators.descent, self.rates, lr=lr)
        return time_to_loss(self.training, loss, term, decrements, descent, 1.0, whole=True)

    def slowest_of(self, term: str) -> Mode | None:
        """The slowest mode above the floor among those that lie in a term more than in any other.

        None where each resolvable mode lies in another term the most; KeyError where the term is
        not trained.
        """
        check_trained(self.training, term)
        lies_in = torch.stack([self.location[name] for name in self.training.terms])
        own = lies_in.argmax(0) == self.training.terms.index(term)
        places = torch.nonzero(own & (self.rates > 0))
        return self[int(places[-1])] if len(places) else None

    @cached_property
    def _energies(self) -> Tensor:
        """L of each mode at the start, (R,)."""
        return self.training.coefficients.square() / 2

    def _curves(self, propagator: Propagator) -> dict[str, Tensor]:
        of_terms = {term: LossCurve(self.training, term) for term in self.training.terms}
        return {term: curve.at(propagator.kept) for term, curve in of_terms.items()}

    def _until(self, tolerance: float, decrements: Tensor) -> Tensor:
        if not tolerance > 0:
            raise ValueError(f"expected a tolerance above 0, got {tolerance}.")
        size, bound = self.training.coefficients.abs(), tolerance * math.sqrt(2 * self.loss)
        waits = torch.where(decrements > 0, torch.log(size / bound) / decrements, math.inf)
        return torch.where((size <= bound) & (decrements >= 0), 0.0, waits)

    def _decrements(self, lr: float) -> Tensor:
        """-log |1 - lr lambda|, by how much each mode falls in a step; below 0 where it grows."""
        if not 0 < lr < math.inf:
            raise ValueError(f"expected lr > 0, got {lr}.")
        x = lr * self.rates
        return -torch.where(x < 0.5, torch.log1p(-x.clamp(max=0.5)), (1 - x).abs().log())
