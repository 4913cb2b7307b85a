"""Neural tangent kernels of physics-informed neural networks, read off the live autograd graph.

Use this package when a PINN trains badly and you want to know why: which loss term learns how
fast (traces), which directions of it never will (spectra), what weights would even the terms out,
and whether the kernel stays as constant as the theory assumes (drift). It takes the residuals or
the loss of the training step that is running, whatever code made them, so the model needs no
functional copy and no edit. For a kernel of a plain network on two sets of inputs, without
differential operators, ``torch.func`` does the job in a few lines.

`empirical_ntk` is the way in. With Lightning, add the callbacks of ``pinn_ntk.callbacks`` to the
Trainer instead. Importing this package imports neither torch nor Lightning; the first use of a
name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinn_ntk.analysis.definiteness import Definiteness, definiteness
    from pinn_ntk.analysis.drift import Drift
    from pinn_ntk.analysis.dynamics import LinearizedTraining
    from pinn_ntk.analysis.early_stopping import EarlyStopping, early_stopping
    from pinn_ntk.analysis.eigenfunctions import eigenfunction_figure
    from pinn_ntk.analysis.interference import Interference, interference
    from pinn_ntk.analysis.kernel_gradient import kernel_gradient, loss_gradients
    from pinn_ntk.analysis.linearized import LinearizedModel
    from pinn_ntk.analysis.modes import Modes
    from pinn_ntk.analysis.regression import kernel_regression
    from pinn_ntk.diagnostics.history import History
    from pinn_ntk.errors import IncompleteTermsError, NTKWarning, OpaqueLossError, ResidualError
    from pinn_ntk.graph.jacobian.empirical import empirical_ntk
    from pinn_ntk.graph.reference import reference_ntk
    from pinn_ntk.graph.terms.curvature import curvature
    from pinn_ntk.graph.terms.find import find_terms
    from pinn_ntk.graph.terms.term import Term
    from pinn_ntk.kernel.decay import Decay
    from pinn_ntk.kernel.jacobian import FactoredJacobian
    from pinn_ntk.kernel.ntk import NTK
    from pinn_ntk.kernel.spectrum import Spectrum
    from pinn_ntk.limit.distance import distance_to_limit
    from pinn_ntk.limit.kernel import LimitKernel
    from pinn_ntk.limit.parametrization import NTKLinear, ntk_mlp, to_ntk_parametrization
    from pinn_ntk.looks.look import Look
    from pinn_ntk.looks.make import look
    from pinn_ntk.taps import tap
    from pinn_ntk.weights.loss_weights import LossWeights
    from pinn_ntk.weights.trace import trace_weights

__version__ = "0.1.0"

__all__ = [
    "NTK",
    "Decay",
    "Definiteness",
    "Drift",
    "EarlyStopping",
    "FactoredJacobian",
    "History",
    "IncompleteTermsError",
    "Interference",
    "LimitKernel",
    "LinearizedModel",
    "LinearizedTraining",
    "Look",
    "LossWeights",
    "Modes",
    "NTKLinear",
    "NTKWarning",
    "OpaqueLossError",
    "ResidualError",
    "Spectrum",
    "Term",
    "curvature",
    "definiteness",
    "distance_to_limit",
    "early_stopping",
    "eigenfunction_figure",
    "empirical_ntk",
    "find_terms",
    "interference",
    "kernel_gradient",
    "kernel_regression",
    "look",
    "loss_gradients",
    "ntk_mlp",
    "reference_ntk",
    "tap",
    "to_ntk_parametrization",
    "trace_weights",
]

_MODULES = {
    "NTK": "pinn_ntk.kernel.ntk",
    "Decay": "pinn_ntk.kernel.decay",
    "Definiteness": "pinn_ntk.analysis.definiteness",
    "Drift": "pinn_ntk.analysis.drift",
    "EarlyStopping": "pinn_ntk.analysis.early_stopping",
    "FactoredJacobian": "pinn_ntk.kernel.jacobian",
    "History": "pinn_ntk.diagnostics.history",
    "IncompleteTermsError": "pinn_ntk.errors",
    "Interference": "pinn_ntk.analysis.interference",
    "LimitKernel": "pinn_ntk.limit.kernel",
    "LinearizedModel": "pinn_ntk.analysis.linearized",
    "LinearizedTraining": "pinn_ntk.analysis.dynamics",
    "Look": "pinn_ntk.looks.look",
    "LossWeights": "pinn_ntk.weights.loss_weights",
    "Modes": "pinn_ntk.analysis.modes",
    "NTKLinear": "pinn_ntk.limit.parametrization",
    "NTKWarning": "pinn_ntk.errors",
    "OpaqueLossError": "pinn_ntk.errors",
    "ResidualError": "pinn_ntk.errors",
    "Spectrum": "pinn_ntk.kernel.spectrum",
    "Term": "pinn_ntk.graph.terms.term",
    "curvature": "pinn_ntk.graph.terms.curvature",
    "definiteness": "pinn_ntk.analysis.definiteness",
    "distance_to_limit": "pinn_ntk.limit.distance",
    "early_stopping": "pinn_ntk.analysis.early_stopping",
    "eigenfunction_figure": "pinn_ntk.analysis.eigenfunctions",
    "empirical_ntk": "pinn_ntk.graph.jacobian.empirical",
    "find_terms": "pinn_ntk.graph.terms.find",
    "interference": "pinn_ntk.analysis.interference",
    "kernel_gradient": "pinn_ntk.analysis.kernel_gradient",
    "kernel_regression": "pinn_ntk.analysis.regression",
    "look": "pinn_ntk.looks.make",
    "loss_gradients": "pinn_ntk.analysis.kernel_gradient",
    "ntk_mlp": "pinn_ntk.limit.parametrization",
    "reference_ntk": "pinn_ntk.graph.reference",
    "tap": "pinn_ntk.taps",
    "to_ntk_parametrization": "pinn_ntk.limit.parametrization",
    "trace_weights": "pinn_ntk.weights.trace",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ lets every misspelt name pass

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
