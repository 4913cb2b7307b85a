"""When to stop training on noisy data: modes of the signal learned, those of the noise not yet.

| symbol | meaning | shape |
| --- | --- | --- |
| y = f* + e | targets of one term, e independent, of standard deviation sigma | (N,) |
| f_n, r_n | outputs after n steps of linearised training, r_n = f_n - y | (N,) |
| p_k | (1 - lr lambda_k)^n, what is left of mode k | |
| s_k | coefficient of f* - f_0 in mode k | |
| H_n | df_n / dy, the smoother | (N, N) |
| Tr H_n | degrees of freedom that the fit has used, from 0 to N at most | |

For one term whose rows weigh the same, the expected risk at the data is

    1/N E |f_n - f*|^2 = 1/N sum_k [p_k^2 s_k^2 + (1 - p_k)^2 sigma^2],

which falls while modes of the signal are learned and rises while those are learned that hold
nothing but noise. s_k^2 is not known; the squared coefficient of y - f_0 less sigma^2 is an
unbiased estimate of it. That put in gives what is used here and what holds for several terms, any
weights and momentum as well:

    risk_n = 1/N |r_n|^2 + 2 sigma^2 Tr H_n / N - sigma^2.

All of this is said of a kernel that stands still, hence of networks that are lazy: linear in their
parameters, or so wide, in the NTK parametrisation, that they hardly leave their linearisation.

Sources: Mallows 1973, Technometrics 15, 661 (C_p); Stein 1981, Annals of Statistics 9, 1135; for
the early stopping of kernels Raskutti, Wainwright, Yu 2014, Journal of Machine Learning Research
15, 335; generalised cross-validation: Craven, Wahba 1979, Numerische Mathematik 31, 377.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pinn_ntk.analysis import propagators
from pinn_ntk.analysis.arrival import grid
from pinn_ntk.analysis.dynamics import LinearizedTraining
from pinn_ntk.analysis.propagators import Propagator

NoiseEstimate = Literal["gcv", "tail"]
"""How the noise is found where it is not known."""

_LONGEST = 10**9


class _Path(NamedTuple):
    """Numbers of steps, mean square of the residual after them, and Tr (I - H), (n,) each."""

    steps: Tensor
    loss: Tensor
    left: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class EarlyStopping:
    """Estimated risk of a noisy term along a training, and where it is least.

    Attributes:
        term: The term with noise.
        steps: Numbers of steps compared, increasing from 0, (n,), int64.
        risk: Estimate of the mean square of f_n - f* at the data, (n,).
        training_loss: Mean square of f_n - y, (n,).
        degrees_of_freedom: Tr H_n, (n,).
        noise: Standard deviation of the noise, given or estimated.
        rows: N, rows of the term.
    """

    term: str
    steps: Tensor
    risk: Tensor
    training_loss: Tensor
    degrees_of_freedom: Tensor
    noise: float
    rows: int

    def __repr__(self) -> str:
        return (
            f"EarlyStopping(term={self.term!r}, step={self.step}, longest={int(self.steps[-1])}, "
            f"risk={float(self.risk.min()):.3g}, noise={self.noise:.3g})"
        )

    @property
    def step(self) -> int | None:
        """After how many steps to stop; None where the risk is least after the last of them."""
        best = int(self.risk.argmin())
        return None if best == len(self.steps) - 1 else int(self.steps[best])

    def valley(self, excess: float = 0.1) -> tuple[int, int]:
        """First and last number of steps whose risk is near the least.

        A wide valley says that the step matters little, and that a measured best step may lie
        anywhere in it. ``excess`` is the allowed excess of the risk over the least one, as a part
        of it. The estimate of a small risk may be too small or negative: the part is one of
        sigma^2 Tr H / N there, what the noise fitted costs, if that is more (Tr H of 1 at least).
        """
        best = int(self.risk.argmin())
        fitted = self.degrees_of_freedom[best].clamp(min=1.0) / self.rows
        scale = torch.maximum(self.risk[best], self.noise**2 * fitted)
        near = self.steps[self.risk <= self.risk[best] + excess * scale]
        return int(near[0]), int(near[-1])


def early_stopping(
    training: LinearizedTraining,
    lr: float,
    term: str | None = None,
    *,
    noise: float | NoiseEstimate = "gcv",
    momentum: float = 0.0,
    max_steps: int | None = None,
) -> EarlyStopping:
    """The step of gradient descent after which more training fits the noise of a term.

    Only as good as the kernel stands still and as the noise of the rows is independent and of one
    size. The kernel of a small network, or of one in the usual parametrisation, grows while it is
    trained: its best step may come earlier than said here by orders of magnitude. Check that the
    network is lazy up to the step: `pinn_ntk.LinearizedModel.distance` after some training, or
    ``ntk/drift`` of the monitor, has to stay below about 0.1. Where it does not, stop by validation
    data.

    Args:
        training: Linearised training of the term, alone or beside others without noise.
        lr: Learning rate, at most ``training.max_stable_lr(momentum)``.
        term: The term with noise; may be left out where only one is trained.
        noise: Standard deviation of the noise where it is known. Else "gcv" for what is left in
            the residual, per degree of freedom, where generalised cross-validation is least along
            the whole training, whatever ``max_steps``, or "tail" for what lies in the slower half
            of the modes, which then must hold no signal.
        momentum: As of ``torch.optim.SGD``.
        max_steps: Longest training among which the best is looked for; until the slowest
            resolvable mode has converged, a billion steps at most, when left out.

    Returns:
        The risk at numbers of steps that grow by 3 %, and the best of them.

    Raises:
        ValueError: ``term`` is not trained, or left out where there are several, ``noise`` is
            negative or of no known kind, or ``lr``, ``momentum`` or ``max_steps`` is out of range,
            such as an ``lr`` for which training diverges.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.zeros(4, requires_grad=True, dtype=torch.float64)
        >>> y = torch.tensor([2.0, -2.0, 2.0, -2.0], dtype=torch.float64)
        >>> fit = torch.eye(4, dtype=torch.float64) @ w
        >>> kernel = empirical_ntk(fit, [w])
        >>> training = LinearizedTraining(kernel, {"residual": -y}, {"residual": 1.0})
        >>> early_stopping(training, lr=0.01, noise=1.0).step  # 0.99^n = 1 / 4, nearly
        139
    """
    term = _chosen(training, term)
    _check_stable(training, lr, momentum)

    def path(longest: int) -> _Path:
        if longest < 1:
            raise ValueError(f"expected max_steps of 1 or more, got {longest}.")
        steps = grid(1.0, longest, whole=True).long().to(training.rates.device)
        floor = training.spectrum.floor
        propagator = propagators.descent(training.rates, steps, lr, momentum, floor)
        return _Path(steps, *_left(training, term, propagator))

    steps, loss, left = searched = path(_horizon(training, lr) if max_steps is None else max_steps)
    whole = searched if max_steps is None or noise != "gcv" else path(_horizon(training, lr))
    sigma = _noise(training, term, noise, whole)
    rows = training.kernel.rows(term)
    risk = loss + sigma**2 * (1 - 2 * left / rows)
    return EarlyStopping(term, steps, risk, loss, rows - left, sigma, rows)


def _check_stable(training: LinearizedTraining, lr: float, momentum: float) -> None:
    highest = training.max_stable_lr(momentum)
    if 0 <= momentum < 1 and lr > highest:
        raise ValueError(
            f"lr is {lr:g}; expected at most {highest:g}, which is training.max_stable_lr("
            f"{f'momentum={momentum:g}' if momentum else ''}). Above it training diverges, and no "
            "step is the best one: take a smaller lr."
        )


def _left(training: LinearizedTraining, term: str, propagator: Propagator) -> tuple[Tensor, Tensor]:
    """Mean square of the residual of a term, and Tr (I - H): one number a number of steps."""
    residual = training.propagated(propagator)[term]
    lies_in = training.modes[training.rows(term)].square().sum(0)
    return residual.square().mean(-1), (propagator.kept * lies_in).sum(-1)


def _noise(training: LinearizedTraining, term: str, noise: float | str, whole: _Path) -> float:
    """sigma, given or estimated; ``whole`` is the path down to the slowest mode."""
    number = isinstance(noise, (int, float)) and not isinstance(noise, bool)
    if number and 0 <= float(noise) < math.inf:
        return float(noise)
    _, loss, left = whole
    if noise == "tail":
        slow = (torch.arange(len(training.rates)) >= len(training.rates) // 2).to(training.rates)
        loss, left = _left(training, term, Propagator(slow, torch.zeros_like(slow)))
        loss, left = loss[None], left[None]
    elif noise != "gcv":
        raise ValueError(
            f"noise is {noise!r}; expected its standard deviation, 0 or more, 'gcv' or 'tail'."
        )
    usable = left > 0
    score = torch.where(usable, loss / torch.where(usable, left, 1.0).square(), math.inf)
    best = int(score.argmin())
    variance = training.kernel.rows(term) * loss[best] / left[best].clamp(min=0.0)
    return math.sqrt(float(variance))


def _horizon(training: LinearizedTraining, lr: float) -> int:
    """Steps in which the slowest resolvable mode falls by exp(-5)."""
    moving = training.rates[training.rates > 0]
    if not len(moving) or not 0 < lr < math.inf:
        return 1
    return min(math.ceil(5 / (lr * float(moving[-1]))), _LONGEST)


def _chosen(training: LinearizedTraining, term: str | None) -> str:
    if term is None and len(training.terms) == 1:
        return training.terms[0]
    if term not in training.terms:
        raise ValueError(
            f"term is {term!r}; expected the one with noise, out of {list(training.terms)}."
        )
    return term
