"""Pictures of spectra over a training, and what event files say of their points."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from pinn_ntk import Spectrum
from pinn_ntk.diagnostics.figures import MAX_LINES, history_figure, pixels
from pinn_ntk.looks.step_terms import PROBE
from pinn_ntk.tensorboard import add_spectrum
from tests.looks import spectrum


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
    brightness = [sum(line.get_color()[:3]) for line in lines]
    assert brightness == sorted(brightness)
    assert brightness[0] < brightness[-1] / 1.5
    assert list(floor.get_ydata()) == [1e-12, 1e-12]
    assert pde.get_yscale() == "log"
    assert pde.get_ylim()[0] > 0.1  # the axis does not reach down into the noise
    assert figure.get_suptitle() == "Spectra on the training batch"
    assert bc.lines[0].get_marker() == "."  # a single eigenvalue makes no line


def test_long_history_is_thinned_to_its_ends_and_what_lies_between():
    lines = history_figure({"pde": history(500)}).axes[0].lines[:-1]
    tops = [float(line.get_ydata()[0]) for line in lines]
    assert (len(lines), tops[0], tops[-1]) == (MAX_LINES, 2.0, 501.0)
    assert tops == sorted(tops)


@pytest.mark.parametrize("name", ["loss/pde_1", "a $ b", "{}"])
def test_any_name_and_a_zero_kernel_can_be_drawn(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    image = pixels(history_figure({name: [(0, spectrum(0.0, floor=0.0))]}))
    assert (image.dtype, image.shape) == (np.uint8, (360, 540, 3))
    assert image.std() > 0


def test_figures_and_event_files_say_on_which_points(tmp_path: Path):
    title = history_figure({"pde": history(2)}, points=PROBE).get_suptitle()
    assert title == "Spectra on a fixed probe"
    with SummaryWriter(str(tmp_path)) as writer:
        add_spectrum(writer, "ntk/spectrum/pde", [2.0, 1.0], 0, rel_floor=1e-14, points=PROBE)
    log = EventAccumulator(str(tmp_path)).Reload()
    content = json.loads(log.PluginTagToContent("spectra")["ntk/spectrum/pde"])
    assert content["points"] == "a fixed probe"
