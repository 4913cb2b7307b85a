"""What is taken off a kernel, and how it is told: numbers, words, a picture. No Trainer."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from pinn_ntk import Spectrum, empirical_ntk
from pinn_ntk.analysis.definiteness import Definiteness
from pinn_ntk.analysis.interference import Interference
from pinn_ntk.diagnostics.decrease import Judged
from pinn_ntk.diagnostics.kernel_drift import KernelDrift
from pinn_ntk.diagnostics.measurement import PROBE, Measurement, measure
from pinn_ntk.diagnostics.report import MAX_LINES, history_figure, layout, pixels, scalars, summary
from pinn_ntk.tensorboard import add_spectrum


def spectrum(*eigenvalues: float, floor: float = 1e-12) -> Spectrum:
    return Spectrum(torch.tensor(eigenvalues, dtype=torch.float64), floor)


def measured(**changes: Any) -> Measurement:
    start: dict[str, Any] = {
        "step": 20,
        "rows": {"pde": 3, "bc": 2},
        "n_params": 7,
        "traces": {"pde": 111.0, "bc": 3.0},
        "spectra": {"pde": spectrum(100.0, 10.0, 1e-14), "bc": spectrum(2.0, 1.0)},
        "drift": {"pde": 0.2, "bc": 0.01, "kernel": 0.19, "parameters": 0.05},
        "max_stable_lr": 0.004,
        "certificate": 3e-8,
    }
    return Measurement(**(start | changes))


# --- Scalars


def test_scalars_by_tag():
    assert scalars(measured()) == {
        "ntk/trace/pde": 111.0,
        "ntk/trace/bc": 3.0,
        "ntk/lambda_max/pde": 100.0,
        "ntk/lambda_max/bc": 2.0,
        "ntk/effective_rank/pde": pytest.approx(110**2 / 10_100),
        "ntk/effective_rank/bc": pytest.approx(9 / 5),
        "ntk/log10_condition/pde": pytest.approx(1.0),  # 1e-14 is below the floor
        "ntk/log10_condition/bc": pytest.approx(math.log10(2)),
        "ntk/drift/pde": 0.2,
        "ntk/drift/bc": 0.01,
        "ntk/drift/kernel": 0.19,
        "ntk/drift/parameters": 0.05,
        "ntk/max_stable_lr": 0.004,
        "ntk/certificate": 3e-8,
    }


def test_scalars_that_are_measured_in_some_trainings_only():
    m = measured(
        effective_weights={"pde": 1.0, "bc": 100.0, "ic": math.inf},
        group_traces={"network": {"pde": 100.0, "bc": 3.0}, "inverse": {"pde": 11.0, "bc": 0.0}},
        drift={"parameters": 0.1, "parameters_network": 0.05, "parameters_inverse": math.nan},
        undefined=("ic",),
    )
    found = scalars(m)
    assert math.isnan(found.pop("ntk/trace/ic"))
    new = {tag: v for tag, v in found.items() if tag not in scalars(measured(drift={}))}
    assert new == {
        "ntk/effective_weight/pde": 1.0,
        "ntk/effective_weight/bc": 100.0,
        "ntk/trace_network/pde": 100.0,
        "ntk/trace_network/bc": 3.0,
        "ntk/trace_inverse/pde": 11.0,
        "ntk/trace_inverse/bc": 0.0,
        "ntk/drift/parameters": 0.1,
        "ntk/drift/parameters_network": 0.05,
    }


def test_scalars_and_layout_take_a_prefix():
    assert scalars(measured(), prefix="probe") == {
        tag.replace("ntk/", "probe/"): value for tag, value in scalars(measured()).items()
    }
    charts = layout("a+b")["A+B"]
    ((_, (pattern,)), *_) = cast("list[tuple[str, list[str]]]", list(charts.values()))
    assert re.fullmatch(pattern, "a+b/trace/pde")
    assert not re.fullmatch(pattern, "aab/trace/pde")


def test_every_chart_of_the_layout_shows_tags_that_are_logged():
    m = measured(effective_weights={"pde": 1.0}, learning_rate=0.1, interference=between(0.5))
    tags = [*scalars(m), "ntk/weight/pde"]
    for _, patterns in cast("Any", layout()["NTK"].values()):
        assert all(any(re.fullmatch(pattern, tag) for tag in tags) for pattern in patterns)


def test_what_is_not_finite_or_not_measured_is_left_out():
    m = measured(
        spectra={"pde": spectrum(0.0, 0.0, floor=0.0)},
        drift={"pde": math.nan, "parameters": 0.0},
        max_stable_lr=math.inf,
        certificate=None,
    )
    tags = set(scalars(m))
    assert tags == {
        *("ntk/trace/pde", "ntk/trace/bc", "ntk/lambda_max/pde", "ntk/effective_rank/pde"),
        "ntk/drift/parameters",
    }


def between(cosine: float, *lengths: float) -> Interference:
    """Interference of pde and bc with that cosine, and gradients of these lengths."""
    a, b = lengths or (1.0, 1.0)
    inner = cosine * a * b
    return Interference(("pde", "bc"), torch.tensor([[a * a, inner], [inner, b * b]]).double())


def test_scalars_of_the_training_itself():
    products = torch.tensor([[4.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).double()
    m = measured(
        learning_rate=0.01,
        interference=Interference(("pde", "bc", "ic"), products),
        distance_to_limit=0.25,
    )
    new = {tag: value for tag, value in scalars(m).items() if tag not in scalars(measured())}
    assert new == {  # the gradient of ic is zero: no direction, no cosine
        "ntk/lr": 0.01,
        "ntk/interference/pde/bc": -0.5,
        "ntk/distance_to_limit": 0.25,
    }


# --- Words


def definite(**changes: Any) -> dict[str, Definiteness]:
    start: dict[str, Any] = {
        "name": "bc",
        "rows": 4,
        "parameters": 9,
        "rank": 4,
        "smallest": 0.5,
        "floor": 1e-12,
        "duplicates": (),
        "still": 0,
        "broadcast": {},
    }
    return {"bc": Definiteness(**(start | changes))}


def test_summary_has_a_row_a_term():
    lines = summary(measured()).splitlines()
    assert lines[0] == "**Kernel at step 20** on the training batch"
    assert "| pde | 3 | 111 | 100 | 1.2 | 1.0e+01 | 0.2 |" in lines
    assert "| bc | 2 | 3 | 2 | 1.8 | 2.0e+00 | 0.01 |" in lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rows": {"pde": 2, "bc": 2}},
            "that of pde is 37 times that of bc, so with equal weights bc lags behind",
        ),
        (
            {"rows": {"pde": 2, "bc": 2}},
            "lags behind. Weights that even the traces out: pde 1.03, bc 38.",
        ),
        (
            {"rows": {"pde": 2, "bc": 2}, "traces": {"pde": 2.0, "bc": 3.0}},
            "Traces: within a factor of 1.5; with equal weights no term lags behind.",
        ),
        (
            {"traces": {"pde": 10.0, "bc": 1.0, "ic": math.inf}},
            "traces out: pde 1.1, bc 11 (the trace rule",
        ),
        (  # 111 / 9 = 12.33 and 3 / 4 = 0.75
            {},
            (
                "that of pde is 37 times that of bc; for plain means over the rows the average "
                "rate of convergence, 2 w Tr K / N^2, of pde is 16.4 times that of bc, so bc lags"
            ),
        ),
        (
            {},
            (
                "Weights that even the rates of plain means of squares out: pde 1.06, bc 17.4 "
                '(NTKBalancer(convention="rate")); that even the traces out: pde 1.03, bc 38 (the '
                'trace rule, eqs 6.5 and 6.6, convention="sum").'
            ),
        ),
        (  # 12.33 and 37.5
            {"effective_weights": {"pde": 1.0, "bc": 50.0}},
            (
                "times that of bc; with the weights in force the average rate of convergence, "
                "2 w Tr K / N^2, of bc is 3.04 times that of pde, so pde lags behind."
            ),
        ),
        (
            {"effective_weights": {"pde": 1.0, "bc": 37.0}, "rows": {"pde": 2, "bc": 2}},
            (
                "Traces: that of pde is 37 times that of bc; with the weights in force the average "
                "rates of convergence, 2 w Tr K / N^2, are within a factor of 1, and no term lags"
            ),
        ),
        (
            {"effective_weights": {"pde": 4.0}, "rows": {"pde": 2, "bc": 2}},
            (
                "of pde is 148 times that of bc, so bc lags behind. Weights that even the traces "
                "out: pde 1.03, bc 38."
            ),
        ),
        (
            {},
            (
                "pde: 1.2 directions carry the kernel, 2 of 3 stand above the rounding noise; the "
                "rest, 1, is not resolved in float32: eigenvalues there are at most of the order "
                "of 1.0e-12, and how slowly they are learned, if at all, is not known; a model in "
                "float64 resolves more."
            ),
        ),
        ({"dtype": "float64"}, "the rest, 1, is not resolved in float64: eigenvalues"),
        ({"dtype": "float64"}, "if at all, is not known.\n"),
        ({"spectra": {"pde": spectrum(9.0)}}, "pde: 1 direction carries the kernel, 1 of 1 stand"),
        ({}, "bc: 1.8 directions carry the kernel, 2 of 2 stand above the rounding noise."),
        ({}, "relative to the norm: the kernel 0.19, the parameters 0.05; in between"),
        ({"drift": {"pde": 0.6, "bc": 0.02, "parameters": 0.1}}, "the kernel of pde 0.6, the ker"),
        ({"drift": {"pde": 0.6, "bc": 0.02, "parameters": 0.1}}, "no longer holds"),
        ({"drift": {"bc": 0.02, "parameters": 0.1}}, "norm: the kernel of bc 0.02, the parameters"),
        ({"drift": {}}, "| pde | 3 | 111 | 100 | 1.2 | 1.0e+01 | - |"),
        ({"moved_points": ("pde", "bc")}, "those of pde, bc changed since the first measurement"),
        ({"moved_points": ("pde",)}, "NTKMonitor(probe=...) measures on points that stay"),
        ({"points": PROBE}, "**Kernel at step 20** on a fixed probe"),
        ({"undefined": ("ic",)}, "Undefined: ic, whose residual holds NaN or inf."),
        ({"undefined": ("ic",)}, "| ic | - | undefined | - | - | - | - |"),
        (
            {"undefined": ("term_2",)},
            "Names: term_2 (not logged: pass names=[...] or log each term).",
        ),
        ({"effective_weights": {"pde": 1.0, "bc": 100.0}}, "plain mean over the rows: pde 1, bc 1"),
        (
            {"group_traces": {"network": {"pde": 100.0}, "inverse": {"pde": 11.0}}},
            "pde: shares of the groups of parameters in its trace: network 0.9, inverse 0.099.",
        ),
        ({"drift": {"kernel": 0.09, "parameters": 0.1}}, "nearly constant"),
        ({"drift": {"kernel": 0.3, "parameters": 0.1}}, "in between"),
        ({"drift": {"kernel": 0.7, "parameters": 0.1}}, "no longer holds"),
        ({}, "plain gradient descent on this loss is unstable above 0.004"),
        ({}, "unstable above 0.004. Adam"),
        (
            {"learning_rate": 0.001},
            "unstable above 0.004; the learning rate in use, 0.001, is 0.25 times that. Adam",
        ),
        ({"learning_rate": 0.1, "max_stable_lr": math.inf}, "unstable above inf. Adam"),
        (  # 1 / -log(1 - 0.1) = 9.491; 1 / 1e-12 of what 1 - x cannot hold
            {"learning_rate": 0.01, "rates": {"pde": (10.0, 1e-10)}},
            "pde in 9.5 steps along its fastest mode, in 1e+12 steps along the slowest above the",
        ),
        (  # 1 / -log(0.99) = 99.5
            {"learning_rate": 1.0, "rates": {"pde": (2.5, 0.01), "bc": (1.0, 0.7)}},
            "pde never (it grows) along its fastest mode, in 99 steps along the slowest above",
        ),
        (
            {"learning_rate": 1.0, "rates": {"pde": (2.5, 0.01), "bc": (1.0, 0.7)}},
            "the noise; bc in a step along its fastest mode, in a step along",
        ),
        (
            {"learning_rate": 1.0, "rates": {"pde": (2.0, 0.01)}},
            "pde never (it swings) along its fastest mode",
        ),
        (
            {"interference": between(-0.62)},
            "pde and bc work against each other (cosine -0.62): a step for one undoes a part",
        ),
        ({"interference": between(-0.62, 1.0, 3.0)}, "The loss of pde rises while the sum falls."),
        (
            {"interference": between(0.3)},
            "Interference: no term undoes another's steps (least cosine 0.3, pde, bc).",
        ),
        (
            {"interference": between(-0.092)},
            "Interference: terms hardly undo each other's steps (least cosine -0.092, pde, bc).",
        ),
        ({"distance_to_limit": 0.2468}, "the network itself is 0.25 from its limit of infinite"),
        (
            {"distance_to_limit": 0.06, "drift": {"parameters": 0.0}},
            "relative to the norm of that; at this first measurement that comes of its finite",
        ),
        (
            {"distance_to_limit": 1.8},
            "by now that is width and training together, and the distance at the first",
        ),
        ({"definiteness": definite()}, "bc: positive definite with smallest eigenvalue 5.0e-01;"),
        (
            {"definiteness": definite(rank=2, duplicates=((0, 1), (2, 3)))},
            "- bc: rank is lost by duplicated points (4 rows, 2 different ones).",
        ),
        (
            {"definiteness": definite(rank=3, broadcast={"bc": (2, 2)})},
            "- bc: the 4 rows of bc look like those of a difference that was broadcast",
        ),
        (
            {"rows": {"pde": 9, "bc": 2}, "repeated": {"pde": 2}},
            "- pde: duplicated points, 9 rows of which 7 are different (looked for in all rows).",
        ),
        (
            {"rows": {"pde": 900, "bc": 2}, "repeated": {"pde": 1}, "dtype": "float64"},
            "- pde: duplicated points, 900 rows of which 899 are different",
        ),
        ({}, "agrees with ordinary backward passes to 3e-08"),
        ({"certificate": None}, "was not checked against ordinary backward passes"),
        (
            {"rows": {"pde": 9, "bc": 2}},
            "are those of 3 of its 9 rows, evenly strided (max_points=4)",
        ),
        (
            {"rows": {"pde": 9, "bc": 2}, "points": PROBE},
            "are those of 3 of its 9 rows, drawn from equal strata (max_points=4)",
        ),
    ],
)
def test_summary_says_what_the_numbers_mean(changes: dict[str, Any], said: str):
    assert said in summary(measured(**changes), max_points=4)


def test_who_lags_behind_follows_from_the_mean_eigenvalue_of_training():
    """Few points learn fast in a plain mean, whatever their trace."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"pde": (400, 3.0), "ic": (4, 1.0), "bc": (2, 1.0)}
    matrices = {
        name: scale * torch.randn(n, 9, generator=generator, dtype=torch.float64)
        for name, (n, scale) in sizes.items()
    }
    theta = torch.ones(9, dtype=torch.float64, requires_grad=True)
    kernel = empirical_ntk({name: A @ theta for name, A in matrices.items()}, {"theta": theta})
    m = measure(kernel, 0, drift=KernelDrift(), params={"theta": theta})
    rates = {
        name: float(torch.linalg.eigvalsh(2 / len(A) * A @ A.mT).mean())
        for name, A in matrices.items()
    }
    assert max(rates, key=rates.__getitem__) == "bc"
    assert min(rates, key=rates.__getitem__) == "pde"
    ratio = rates["bc"] / rates["pde"]
    said = f"2 w Tr K / N^2, of bc is {ratio:.3g} times that of pde, so pde lags behind."
    assert said in summary(m)


@pytest.mark.parametrize(
    ("changes", "unsaid"),
    [
        ({"drift": {"kernel": 0.0, "parameters": 0.0}}, "Drift"),  # the first measurement
        ({"drift": {"parameters": 0.1}}, "Drift"),
        ({"drift": {"pde": 0.1}}, "Drift"),
        ({"drift": {}}, "nan"),
        ({"traces": {"pde": 1.0, "bc": math.inf}}, "Traces"),
        ({"traces": {"pde": math.nan, "bc": 1.0}}, "Traces"),
        ({"traces": {"pde": math.inf, "bc": math.nan}}, "Traces"),
        ({"traces": dict.fromkeys(("pde", "bc"), math.inf), "group_traces": {"g": {}}}, "shares"),
        ({}, "Points"),
        ({}, "Undefined"),
        ({}, "Names"),
        ({}, "shares of the groups"),
        ({"effective_weights": {"pde": 1.0, "bc": 1.0 - 1e-7}}, "Weights in force"),
        ({"max_stable_lr": None}, "Step size"),
        ({"traces": {"pde": 1.0}, "spectra": {"pde": spectrum(1.0)}}, "Traces"),
        ({"traces": {"pde": 1.0, "bc": 0.0}}, "Traces"),
        ({"effective_weights": {"pde": 1.0, "bc": 0.0}}, "Traces"),
        ({"effective_weights": {"pde": 1.0, "bc": math.inf}}, "Traces"),
        ({"effective_weights": {"pde": 1.0, "bc": math.nan}}, "Traces"),
        ({"effective_weights": {"pde": 1.0, "bc": 25.0}}, "even"),  # nobody lags behind
        ({}, "evenly strided"),
        ({}, "Time scales"),
        ({"learning_rate": 0.1}, "Time scales"),
        ({"rates": {"pde": (1.0, 0.1)}}, "Time scales"),
        ({"learning_rate": 0.1, "max_stable_lr": None}, "Step size"),
        ({}, "Interference"),
        ({"interference": between(0.5, 0.0, 1.0)}, "Interference"),
        ({"interference": between(-0.62)}, "rises"),
        ({"interference": between(-0.05)}, "against"),
        ({}, "Prediction"),
        ({}, "infinite width"),
        ({"distance_to_limit": math.nan}, "infinite width"),
        ({"distance_to_limit": 1.8}, "finite width alone"),
        ({"distance_to_limit": 0.06, "drift": {"parameters": 0.0}}, "together"),
        ({"dtype": "float64"}, "resolves more"),
        ({}, "nothing is learned"),
        ({"rows": {"pde": 900, "bc": 2}, "repeated": {"pde": 18}}, "duplicated"),
        (
            {"rows": {"pde": 3, "bc": 9}, "repeated": {"bc": 5}}
            | {"definiteness": definite(searched=(9, 4))},
            "looked for",
        ),
        ({"interference": between(-0.092)}, "no term"),
        ({"definiteness": definite(rank=3)}, "- bc: rank"),
        ({"definiteness": definite(rank=3)}, "positive definite"),
    ],
)
def test_summary_is_silent_on_what_is_not_known(changes: dict[str, Any], unsaid: str):
    assert unsaid not in summary(measured(**changes))


@pytest.mark.parametrize(
    ("ratio", "predicted", "said"),
    [
        (1.04, 0.5, "the step at 7 the loss fell as much as the kernel says; the kernel at that"),
        (0.85, 0.5, "fell 0.85 times as much as the kernel says; the kernel at that step explains"),
        (1.5, 0.5, "fell 1.5 times as much as the kernel says; such steps are too long"),
        (-0.3, 0.5, "rose, by 0.3 times the fall that the kernel says; such steps are too long"),
        (1.01, -0.5, "rose as much as the kernel says: the step is too long, for linear residuals"),
        (1.4, -0.5, "rose 1.4 times as much as the kernel says; such steps are too long"),
        (-0.3, -0.5, "fell, by 0.3 times the rise that the kernel says; such steps are too long"),
        (0.9, None, "changed 0.9 times as much as the kernel says; the kernel at that step"),
        (-0.3, None, "changed, by 0.3 times the change that the kernel says; such steps"),
    ],
)
def test_summary_says_how_the_last_forecast_came_true(
    ratio: float, predicted: float | None, said: str
):
    assert said in summary(measured(), judged=Judged(7, ratio, predicted))


# --- Picture


def history(count: int) -> list[tuple[int, Spectrum]]:
    return [(10 * i, spectrum(2.0 + i, 1.0, 1e-13)) for i in range(count)]


def test_figure_draws_what_is_above_the_floor_from_dark_to_bright():
    figure = history_figure({"pde": history(3), "bc": [(0, spectrum(5.0))]})
    pde, bc, bar = figure.axes
    assert [pde.get_title(), bc.get_title(), bar.get_ylabel()] == ["pde", "bc", "training step"]
    *lines, floor = pde.lines
    for line, (_, drawn) in zip(lines, history(3), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2])
        np.testing.assert_array_equal(line.get_ydata(), drawn.eigenvalues[:2].numpy())
    brightness = [sum(cast("tuple[float, ...]", line.get_color())[:3]) for line in lines]
    assert brightness == sorted(brightness)
    assert brightness[0] < brightness[-1] / 1.5
    assert list(cast("Any", floor.get_ydata())) == [1e-12, 1e-12]
    assert pde.get_yscale() == "log"
    assert pde.get_ylim()[0] > 0.1  # the axis does not reach down into the noise
    assert figure.get_suptitle() == "Spectra on the training batch"
    assert bc.lines[0].get_marker() == "."  # a single eigenvalue makes no line


def test_long_history_is_thinned_to_its_ends_and_what_lies_between():
    lines = history_figure({"pde": history(500)}).axes[0].lines[:-1]
    assert len(lines) == MAX_LINES
    tops = [float(cast("Any", line.get_ydata())[0]) for line in lines]
    assert (tops[0], tops[-1]) == (2.0, 501.0)
    assert tops == sorted(tops)


@pytest.mark.parametrize("name", ["loss/pde_1", "a $ b", "{}"])
def test_any_name_and_a_zero_kernel_can_be_drawn(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    image = pixels(history_figure({name: [(0, spectrum(0.0, floor=0.0))]}))
    assert image.dtype == np.uint8
    assert image.shape == (360, 540, 3)
    assert image.std() > 0


def test_figure_says_on_which_points():
    assert history_figure({"pde": history(2)}, points=PROBE).get_suptitle() == (
        "Spectra on a fixed probe"
    )


def test_spectra_say_on_which_points(tmp_path: Path):
    with SummaryWriter(str(tmp_path)) as writer:
        add_spectrum(writer, "ntk/spectrum/pde", [2.0, 1.0], 0, rel_floor=1e-14, points=PROBE)
    log = EventAccumulator(str(tmp_path)).Reload()
    content = json.loads(log.PluginTagToContent("spectra")["ntk/spectrum/pde"])
    assert content["points"] == "a fixed probe"
