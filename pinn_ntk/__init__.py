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

from typing import TYPE_CHECKING

from pinn_ntk.lazy import publish

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
    from pinn_ntk.errors import (
        ArgumentError,
        GradientError,
        IncompleteTermsError,
        NTKWarning,
        OpaqueLossError,
        ResidualError,
    )
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
    from pinn_ntk.looks.progress import Progress
    from pinn_ntk.taps import tap
    from pinn_ntk.verdict.cause import Cause
    from pinn_ntk.verdict.diagnose import diagnose
    from pinn_ntk.verdict.verdict import Evidence, Verdict
    from pinn_ntk.weights.balancing import Balancing
    from pinn_ntk.weights.loss_weights import LossWeights
    from pinn_ntk.weights.rule import BalancingRule
    from pinn_ntk.weights.trace import trace_weights

__version__ = "0.1.0"

__all__ = [
    "NTK",
    "ArgumentError",
    "Balancing",
    "BalancingRule",
    "Cause",
    "Decay",
    "Definiteness",
    "Drift",
    "EarlyStopping",
    "Evidence",
    "FactoredJacobian",
    "GradientError",
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
    "Progress",
    "ResidualError",
    "Spectrum",
    "Term",
    "Verdict",
    "curvature",
    "definiteness",
    "diagnose",
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

_MODULES = publish(
    globals(),
    {
        "analysis.definiteness": "Definiteness definiteness",
        "analysis.drift": "Drift",
        "analysis.dynamics": "LinearizedTraining",
        "analysis.early_stopping": "EarlyStopping early_stopping",
        "analysis.eigenfunctions": "eigenfunction_figure",
        "analysis.interference": "Interference interference",
        "analysis.kernel_gradient": "kernel_gradient loss_gradients",
        "analysis.linearized": "LinearizedModel",
        "analysis.modes": "Modes",
        "analysis.regression": "kernel_regression",
        "diagnostics.history": "History",
        "errors": (
            "ArgumentError GradientError IncompleteTermsError NTKWarning OpaqueLossError"
            " ResidualError"
        ),
        "graph.jacobian.empirical": "empirical_ntk",
        "graph.reference": "reference_ntk",
        "graph.terms.curvature": "curvature",
        "graph.terms.find": "find_terms",
        "graph.terms.term": "Term",
        "kernel.decay": "Decay",
        "kernel.jacobian": "FactoredJacobian",
        "kernel.ntk": "NTK",
        "kernel.spectrum": "Spectrum",
        "limit.distance": "distance_to_limit",
        "limit.kernel": "LimitKernel",
        "limit.parametrization": "NTKLinear ntk_mlp to_ntk_parametrization",
        "looks.look": "Look",
        "looks.make": "look",
        "looks.progress": "Progress",
        "taps": "tap",
        "verdict.cause": "Cause",
        "verdict.diagnose": "diagnose",
        "verdict.verdict": "Evidence Verdict",
        "weights.balancing": "Balancing",
        "weights.loss_weights": "LossWeights",
        "weights.rule": "BalancingRule",
        "weights.trace": "trace_weights",
    },
)
