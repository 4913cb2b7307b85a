"""The studies that repeat figures of Wang, Yu, Perdikaris 2022: shrunk, and their parts."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from pytorch_lightning.loggers import TensorBoardLogger

from pinn_ntk import Spectrum
from pinn_ntk.graph.reference import reference_jacobian
from tests.operators import laplacian
from tests.scripts import ROOT, load, study

problems = load("problems")
poisson, wave = problems.poisson, problems.wave
drift, spectra, wave_spectra = load("drift"), load("spectra"), load("wave_spectra")


# --- Drift, Figs 2 and 3


def test_drift_as_a_user_runs_it(tmp_path: Path):
    options = ("--widths", "[4,64]", "--hidden_layers", "[1]", "--seeds", "[0]", "--steps", "120")
    numbers = study("drift", tmp_path, *options)
    assert [run["steps"] for run in numbers["runs"]] == [120, 120]
    rows = {row["drift"]: row for row in numbers["summary"]}
    narrow, wide = (rows["parameters"]["final"][width][0] for width in ("4", "64"))
    assert 0 < wide < narrow
    assert rows["parameters"]["slope"] == pytest.approx(math.log(wide / narrow) / math.log(16))
    assert f"| 1 | parameters | {narrow:.3g} (" in numbers["printed"]
    assert numbers["printed"].count("% of it for the kernel") == 2


def test_drift_is_that_of_kernels_row_by_row():
    setting = drift.Setting(width=5, hidden_layers=2, seed=3, steps=7)
    record = drift.run(setting)
    drift.seed_everything(3, verbose=False)
    points = poisson.Points(steps=7)
    model = drift.Descent(setting, points)
    x_b, x_r = points.train["x_b"], points.train["x_r"]
    exact_b, source = torch.sin(math.pi * x_b), -(math.pi**2) * torch.sin(math.pi * x_r)

    def residuals() -> tuple[torch.Tensor, torch.Tensor]:
        x = x_r.clone().requires_grad_()
        return model.net(x_b) - exact_b, laplacian(model.net(x), x) - source

    def kernels() -> dict[str, torch.Tensor]:
        b, r = (reference_jacobian(residual, model) for residual in residuals())
        both = torch.cat([b, r])
        theta = torch.cat([p.detach().double().flatten() for p in model.parameters()])
        return {"loss_b": b @ b.T, "loss_r": r @ r.T, "kernel": both @ both.T, "parameters": theta}

    start, optimizer = kernels(), torch.optim.SGD(model.parameters(), lr=1e-5)
    for _ in range(6):  # the monitor measures before the step
        optimizer.zero_grad()
        sum(r.square().sum() / 2 for r in residuals()).backward()
        optimizer.step()
    for name, now in kernels().items():
        step, value = record["drift"][name][-1]
        assert step == 6
        expected = float((now - start[name]).norm() / start[name].norm())
        assert value == pytest.approx(expected, rel=2e-3)


def test_losses_of_both_conventions():
    residual = torch.tensor([3.0, 4.0, 0.0, 0.0])[:, None]
    points = poisson.Points()
    for loss, expected in (("sum", 12.5), ("mean", 6.25)):
        model = drift.Descent(drift.Setting(2, 1, 0, loss=loss), points)
        assert float(model.size(residual)) == expected


def test_standardised_inputs_leave_the_units():
    points = poisson.Points()
    settings = (drift.Setting(6, 1, 0, standardised=flag) for flag in (False, True))
    plain, standard = (drift.Descent(setting, points).double() for setting in settings)
    standard.load_state_dict(plain.state_dict())
    x = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)[:, None]
    z = (x - points.mean) / points.std
    torch.testing.assert_close(standard.net(x), plain.net(z))
    u_xx = (plain.residual(z) + plain.source(z)) / points.std**2
    torch.testing.assert_close(standard.residual(x) + standard.source(x), u_xx)


def test_a_diverging_run_ends_and_is_left_out(tmp_path: Path):
    setting = drift.Setting(width=4, hidden_layers=1, seed=0, steps=2000, lr=0.1)
    (record,) = drift.runs([setting], tmp_path)
    assert record["diverged"]
    assert record["steps"] < 20
    assert math.isnan(drift.final([record], "kernel")[0])
    assert record["setting"] == asdict(setting)


def test_a_finished_run_is_not_run_again_with_these_settings(tmp_path: Path):
    first, second = (drift.Setting(3, 1, 0, steps=steps) for steps in (2, 3))
    assert first.name == second.name
    found = [next(drift.runs([setting], tmp_path)) for setting in (first, first, second)]
    assert [record["steps"] for record in found] == [2, 2, 3]
    assert found[0]["seconds"] == found[1]["seconds"]


def test_slope_of_a_power_law():
    widths = [10, 100, 500]
    assert drift.slope(widths, 3 * np.array(widths) ** -0.5) == pytest.approx(-0.5)
    assert math.isnan(drift.slope([10], [1.0]))


# --- Spectra of the wave equation, Fig 7


def tiny_wave(folder: Path) -> Path:
    """``wave.yaml`` with a network and points that take no time."""
    settings = yaml.safe_load((ROOT / "configs" / "wave.yaml").read_text())
    settings["model"] |= {"width": 6, "frequencies": 8}
    settings["data"] |= {"n_initial": 6, "n_boundary": 4, "n_residual": 9, "n_test": 10}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_wave_spectra_as_a_user_runs_it(tmp_path: Path):
    config = tiny_wave(tmp_path)
    options = ("--seeds", "[1]", "--steps", "21", "--settings", str(config))
    numbers = study("wave_spectra", tmp_path, *options)
    rows = {(row["term"], row["moment"]): row for row in numbers["summary"]}
    assert [rows["loss_r", moment]["step"] for moment in ("start", "middle", "end")] == [0, 10, 20]
    # The same network and points by hand.
    settings = yaml.safe_load(config.read_text())
    wave_spectra.seed_everything(1, verbose=False)
    model = wave.Wave(**settings["model"])
    batch = wave.Points(**settings["data"], seed=1).draw(1)
    residual = model.residuals(batch)["loss_ut"]
    squares = reference_jacobian(residual, model).square().sum(1)
    assert len(squares) == 6
    start = rows["loss_ut", "start"]
    assert start["trace"] == pytest.approx(float(squares.sum()), rel=1e-4)
    assert f"| loss_ut | start | 0 | {start['lambda_max']:.3g} |" in numbers["printed"]


def test_residuals_are_those_of_the_losses():
    model = wave.Wave(width=4, depth=1)
    batch = wave.Points(n_initial=5, n_boundary=5, n_residual=7).draw(2)
    logged: dict[str, torch.Tensor] = {}
    model.log_dict = logged.update
    model.training_step(batch)
    for name, residual in model.residuals(batch).items():
        times = 3 if name == "loss_u" else 1
        torch.testing.assert_close(times * residual.square().mean(), logged[name])
    assert logged.keys() == {"loss_u", "loss_ut", "loss_r"}


@pytest.mark.filterwarnings("ignore:.*log_every_n_steps.*:UserWarning")
def test_logs_and_checkpoints_hold_what_the_monitor_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    settings = yaml.safe_load(tiny_wave(tmp_path).read_text())
    model = wave.Wave(**settings["model"])
    monitor = wave_spectra.NTKMonitor(steps=[0, 2, 4])
    logger = TensorBoardLogger(tmp_path, name="run")
    points = wave.Points(**settings["data"], steps=5)
    with caplog.at_level("DEBUG"):
        run = problems.fit_quietly(model, points, monitor, logger=logger)
    assert not [record for record in caplog.records if "lightning" in record.name]
    run.save_checkpoint(tmp_path / "last.ckpt")
    from_file = wave_spectra.read(tmp_path / "last.ckpt")
    from_logs = wave_spectra.read(Path(logger.log_dir))
    assert from_file.keys() == from_logs.keys() == monitor.spectra.keys()
    for term, series in monitor.spectra.items():
        for found, rtol in ((from_file, 0.0), (from_logs, 1e-6)):
            assert [step for step, _ in found[term]] == [0, 2, 4]
            for (_, ours), (_, kept) in zip(found[term], series, strict=True):
                values = kept.eigenvalues.double()
                torch.testing.assert_close(ours.eigenvalues, values, rtol=rtol, atol=0.0)
                assert ours.floor == pytest.approx(kept.floor, rel=1e-5)


def test_a_folder_without_spectra_is_said(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no spectra in .*expected the log folder"):
        wave_spectra.read(tmp_path)
    torch.save({"callbacks": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"no spectra in .*other\.ckpt"):
        wave_spectra.read(tmp_path / "other.ckpt")


def test_moments_are_the_nearest_measured():
    series = [(step, Spectrum(torch.ones(1), 0.0)) for step in (0, 40, 60, 100)]
    nearest = [wave_spectra.near(series, share)[0] for share in (0.0, 0.45, 0.55, 1.0)]
    assert nearest == [0, 40, 60, 100]
    assert [step for step, _ in wave_spectra.snapshots(series)] == [0, 40, 100]


# --- Spectra for a = 1, 2, 4, Fig 1


def test_spectra_as_a_user_runs_it(tmp_path: Path):
    options = ("--frequencies", "[1,4]", "--seeds", "[0]", "--width", "6", "--steps", "30")
    numbers = study("spectra", tmp_path, *options)
    assert numbers["spread_over_a"]["initialisation"] == 0.0
    assert numbers["spread_over_a"]["after training"] > 1e-4
    ranks = {(r["moment"], r["a"], r["block"]): r["rank"] for r in numbers["spectra"]}
    assert ranks["initialisation", 1.0, "K_uu"] == ranks["after training", 4.0, "K_uu"] == 2
    assert len(ranks) == 12
    assert "| initialisation | any | K_uu |" in numbers["printed"]
    for name in ("poisson", "wave"):
        assert imread(tmp_path / "spectra" / f"eigenfunctions_{name}.png")[..., :3].std() > 0.05


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
@pytest.mark.parametrize("standardised", [True, False])
def test_spectra_are_those_of_kernels_row_by_row(parametrization: str, standardised: bool):
    model = spectra.make_model(2.0, 1, spectra.Setting(5, 0, parametrization, standardised))
    found = spectra.spectra_of(spectra.kernel_of(model))
    assert next(model.parameters()).dtype == torch.float32
    model.double()
    x_b, x_r = (poisson.Points().train[name].double() for name in ("x_b", "x_r"))
    b, r = (reference_jacobian(v, model) for v in (model.net(x_b), model.residual(x_r)))
    for block, rows in (("K_uu", b), ("K_rr", r), ("K", torch.cat([b, r]))):
        expected = torch.linalg.svdvals(rows).square()
        assert found[block].rank == 2 if block == "K_uu" else 4 < found[block].rank <= 16
        top = found[block].lambda_max
        eigenvalues = found[block].eigenvalues[:16]
        assert torch.allclose(eigenvalues, expected[:16], rtol=1e-9, atol=1e-14 * top)


def test_parametrisations_of_the_same_function_have_other_kernels():
    """By the chain rule, W = omega / sqrt(width) in the output layer and W = omega in the first."""
    settings = (spectra.Setting(9, parametrization=p) for p in ("ntk", "standard"))
    ntk, standard = (spectra.make_model(1.0, 0, setting).double().net for setting in settings)
    deviations = [float(layer.weight.detach().std()) for layer in (standard[2], ntk.layers[2])]
    assert deviations[0] < 0.6 < deviations[1]
    with torch.no_grad():
        for ours, theirs, scale in ((0, 0, 1.0), (2, 2, 1 / 3)):
            standard[theirs].weight.copy_(scale * ntk.layers[ours].weight)
            standard[theirs].bias.copy_(ntk.layers[ours].bias)
    x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(ntk(x), standard(x))
    weights, same = ntk.layers[2].weight, standard[2].weight
    of_ntk = reference_jacobian(ntk(x), [weights])
    torch.testing.assert_close(of_ntk, reference_jacobian(standard(x), [same]) / 3)


def test_table_of_spectra():
    spectrum = Spectrum.of(torch.diag(torch.exp(-torch.arange(6.0, dtype=torch.float64))))
    found = {("initialisation", a, 0): {"K": spectrum} for a in (1.0, 2.0)}
    rows = spectra.summary(found)
    assert [row["decay"][:2] for row in rows] == [["exponential", pytest.approx(1.0)]] * 2
    assert "| initialisation | any | K | 1 | 1.58 |" in spectra.table(rows)
    assert "exp(-1 i), R^2 1.000" in spectra.table(rows)
    assert spectra.spread_over_a(found) == {"initialisation": 0.0}
