"""How many eigenvalues of a kernel come out right: from the kernel and from the Jacobian.

    python -m benchmarks.spectrum

Accuracy: the kernel of 38 rows u_xx and 2 boundary rows u(-1), u(1) of an MLP 1-[w]*d-1 with tanh,
as one matrix of 40 rows, against eigenvalues in 60 digits from the same (float32) parameters and
points. An eigenvalue is right when it is within 10 % of that of the same index; counted are those
before the first wrong one. "above floor" are those that `Spectrum` takes for more than noise, and
"worst" is the largest relative error among them: a floor is honest where that is below 0.1.

| contestant | what it does |
| --- | --- |
| fast | forms K, symmetric eigenvalues |
| accurate | sequential TSQR over columns of J, singular values, squared |

each with residual and products in float32, in float64, and with the residual in float32 and the
products in float64, which is what `empirical_ntk` does for a float32 model.

Cost: both from live factors of u_xx of an MLP 1-[128]*3-1 at 512 points, 33,409 parameters, once
as a whole for memory, then in rounds for time; see `benchmarks.measure`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.measure import interleaved, peak_extra_memory, ratio
from benchmarks.peers import Problem
from benchmarks.report import FOLDER, begun, parser, write
from pinn_ntk import NTK, Spectrum, empirical_ntk

RESULTS = FOLDER / "spectrum.json"
DIGITS = 60
BITS = 240
"""Binary places of the numbers in the truth: 72 digits."""
WITHIN = 0.1
"""Relative error up to which an eigenvalue is right."""
INSIDE = 38
"""Rows of u_xx."""
METHODS = ("fast", "accurate")
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "float32, products in float64": (torch.float32, torch.float64),
    "float64": (torch.float64, torch.float64),
}
"""Name -> dtype of the residual, dtype of the products."""
NETWORKS = ((16, 2, 0), (16, 2, 1), (64, 3, 0))
"""Width, hidden layers and seed of each network."""

Array = NDArray[Any]
"""Numbers of 60 digits."""


def make_network(width: int, depth: int, seed: int) -> nn.Sequential:
    """Tanh layers with weights N(0, 1 / fan_in) and biases N(0, 1), float32."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise([1, *[width] * depth, 1]):
        layer = nn.Linear(n_in, n_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(n_out, n_in, generator=generator) / n_in**0.5)
            layer.bias.copy_(torch.randn(n_out, generator=generator))
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def points(number: int) -> Tensor:
    """Evenly spaced on [-1, 1], (number, 1), float32."""
    return torch.linspace(-1.0, 1.0, number)[:, None]


def kernel_of(network: nn.Sequential, dtype: torch.dtype, products: torch.dtype) -> NTK:
    """Kernel of u_xx inside and u on the boundary; ``network`` changes to ``dtype``."""
    network.to(dtype)
    inside = Problem(network, points(INSIDE).to(dtype))
    residuals = {"pde": inside.residual(), "boundary": network(points(2).to(dtype))}
    return empirical_ntk(residuals, network, dtype=products)


def true_eigenvalues(network: nn.Sequential) -> list[Any]:
    """Eigenvalues of the kernel of `kernel_of`, largest first, each an ``mpmath.mpf``."""
    with mpmath.workdps(DIGITS):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        weights = [_exact(layer.weight) for layer in layers]
        biases = [_exact(layer.bias) for layer in layers]
        rows = [_gradient(weights, biases, x, order=2) for x in _exact(points(INSIDE)).flat]
        rows += [_gradient(weights, biases, x, order=0) for x in _exact(points(2)).flat]
        kernel = mpmath.matrix(_gram(np.array(rows)).tolist())
        return sorted(mpmath.eigsy(kernel, eigvals_only=True), reverse=True)


def _gram(jacobian: Array) -> Array:
    """J J^T in whole numbers of 2^-BITS, which Python multiplies faster than mpmath does."""
    whole = np.vectorize(lambda x: int(mpmath.ldexp(x, BITS)), otypes=[object])(jacobian)
    back = np.vectorize(lambda x: mpmath.ldexp(mpmath.mpf(x), -2 * BITS), otypes=[object])
    return np.asarray(back(whole.dot(whole.T)))


def _exact(tensor: Tensor) -> Array:
    exact = np.vectorize(lambda number: mpmath.mpf(float(number)), otypes=[object])
    return np.asarray(exact(tensor.detach().numpy()))


def _gradient(weights: Sequence[Array], biases: Sequence[Array], x: Any, order: int) -> Array:
    """d u^(order)(x) / d theta by hand, (P,).

    Forwards go the derivatives h_k = d^k h / dx^k of each layer, k = 0, 1, 2, backwards the
    adjoints of them.
    """
    inputs, slopes = [[np.array([x]), np.array([mpmath.mpf(1)]), np.array([mpmath.mpf(0)])]], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        z = [weight.dot(h) for h in inputs[-1]]
        z[0] = z[0] + bias
        t = np.vectorize(mpmath.tanh, otypes=[object])(z[0])
        first = 1 - t * t
        second = -2 * t * first
        third = -2 * first * first - 2 * t * second
        slopes.append((z, first, second, third))
        inputs.append([t, first * z[1], second * z[1] ** 2 + first * z[2]])
    adjoint = [np.array([mpmath.mpf(int(k == order))]) for k in range(3)]  # of z of the last layer
    parts: list[Array] = []
    for number in range(len(weights) - 1, -1, -1):
        outer = sum(np.outer(a, h) for a, h in zip(adjoint, inputs[number], strict=True))
        parts = [np.asarray(outer).flatten(), adjoint[0], *parts]
        if number:
            back = [weights[number].T.dot(a) for a in adjoint]
            adjoint = _through_tanh(back, *slopes[number - 1])
    return np.concatenate(parts)


def _through_tanh(
    back: Sequence[Array], z: Sequence[Array], first: Array, second: Array, third: Array
) -> list[Array]:
    """Adjoints of z_k from those of h_k, with h_1 = t' z_1 and h_2 = t'' z_1^2 + t' z_2."""
    return [
        first * back[0] + second * z[1] * back[1] + (third * z[1] ** 2 + second * z[2]) * back[2],
        first * back[1] + 2 * second * z[1] * back[2],
        first * back[2],
    ]


@dataclass(frozen=True)
class Accuracy:
    """How one spectrum compares with the truth."""

    right: int  # eigenvalues within 10 % before the first that is not
    last_right: float  # the last of them relative to the largest eigenvalue
    above_floor: int  # eigenvalues that are said to be no noise
    worst: float  # largest relative error among those above the floor


def accuracy(spectrum: Spectrum, truth: Sequence[Any]) -> Accuracy:
    """Compare eigenvalue by eigenvalue."""
    with mpmath.workdps(DIGITS):
        found = [mpmath.mpf(value) for value in spectrum.eigenvalues.double().tolist()]
        errors = [float(abs(f - t) / t) for f, t in zip(found, truth, strict=True)]
        right = next((i for i, e in enumerate(errors) if not e <= WITHIN), len(errors))
        last = float(truth[right - 1] / truth[0]) if right else 1.0
    return Accuracy(right, last, spectrum.rank, max(errors[: spectrum.rank], default=0.0))


def accuracies(width: int, depth: int, seed: int) -> dict[str, Any]:
    """All contestants on one network, ready for JSON."""
    network = make_network(width, depth, seed)
    truth = true_eigenvalues(network)
    found = {}
    for name, (dtype, products) in PRECISIONS.items():
        kernel = kernel_of(make_network(width, depth, seed), dtype, products)
        for method in METHODS:
            spectrum = kernel.spectrum(method=method)
            found[f"{method}, {name}"] = vars(accuracy(spectrum, truth))
    return {
        "width": width,
        "depth": depth,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "rows": len(truth),
        "condition": float(truth[0] / truth[-1]),
        "contestants": found,
    }


def cost(number: int, width: int, depth: int, repeats: int) -> dict[str, Any]:
    """Time and memory of both methods, in float64, from live factors; ready for JSON."""
    torch.manual_seed(0)
    network = make_network(width, depth, 0).double()
    u_xx = Problem(network, points(number).double()).residual()
    jacobian = empirical_ntk(u_xx, network, certify=False).jacobian("residual")
    runs = {m: (lambda m=m: NTK({"residual": jacobian}).spectrum(method=m)) for m in METHODS}
    cpu = torch.device("cpu")
    peaks = {method: peak_extra_memory(run, cpu)[1] for method, run in runs.items()}
    times = interleaved(runs, repeats=repeats, max_seconds=60.0, device=cpu)
    return {
        "points": number,
        "parameters": jacobian.shape[1],
        "whole_jacobian_bytes": 8 * number * jacobian.shape[1],
        "median_s": {method: timing.median for method, timing in times.items()},
        "wall_s": {method: timing.wall for method, timing in times.items()},
        "cpu_s": {method: timing.cpu for method, timing in times.items()},
        "peak_bytes": peaks,
        "time_ratio": ratio(times["accurate"].wall, times["fast"].wall),
    }


def accuracy_table(found: Mapping[str, Any]) -> str:
    """The accuracies of one network in Markdown."""
    head = (
        f"1-[{found['width']}]*{found['depth']}-1, seed {found['seed']}, {found['parameters']} "
        f"parameters, {found['rows']} rows, condition {found['condition']:.0e}\n\n"
        "| contestant | right | last right / largest | above floor | worst above floor |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    lines = [
        f"| {name} | {f['right']} | {f['last_right']:.0e} | {f['above_floor']} | {f['worst']:.0e} |"
        for name, f in found["contestants"].items()
    ]
    return head + "\n".join(lines) + "\n"


def cost_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Time and memory of both methods in words."""
    yield f"{found['points']} rows, {found['parameters']} parameters, float64"
    for method in METHODS:
        seconds, peak = found["median_s"][method], found["peak_bytes"][method]
        yield f"  {method:10}{seconds:8.3f} s{peak / 1e6:8.1f} MB"
    whole = found["whole_jacobian_bytes"] / 1e6
    yield f"  accurate / fast {found['time_ratio']:.1f}; the whole J alone {whole:.0f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and keep all figures as JSON."""
    made = parser(__doc__, RESULTS)
    add = made.add_argument
    add("--points", type=int, default=512, help="rows for time and memory")
    add("--width", type=int, default=128, help="of the network for time and memory")
    add("--depth", type=int, default=3, help="of the network for time and memory")
    add("--repeats", type=int, default=9)
    add("--networks", type=int, default=len(NETWORKS), help="how many, for accuracy")
    options = made.parse_args(arguments)
    report = begun(options.threads) | {"digits": DIGITS, "accuracy": []}
    report["cost"] = cost(options.points, options.width, options.depth, options.repeats)
    print("\n".join(cost_lines(report["cost"])), "\n")
    for network in NETWORKS[: options.networks]:
        report["accuracy"].append(accuracies(*network))
        print(accuracy_table(report["accuracy"][-1]))
    write(options.json, report)


if __name__ == "__main__":
    main()
