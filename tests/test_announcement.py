"""One line when a fit starts and one when it ends, for all callbacks of this package together."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from pinn_ntk import NTKWarning
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from pinn_ntk.callbacks.schedule import Schedule
from pinn_ntk.callbacks.trainer.announcement import Done, end_line, start_line, timing
from tests.pinn import Pinn, batch, build, calling, fit, trainer


class Validated(Pinn):
    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


def lines(caplog: pytest.LogCaptureFixture, *callbacks: Any, **options: Any) -> list[str]:
    """What was said to the user in a fit, those of Lightning left out."""
    caplog.clear()
    with caplog.at_level("INFO"):
        fit(build(), *callbacks, **options)
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if line.startswith("NTK") and "matplotlib" not in line]


def test_one_line_at_the_start_and_one_at_the_end(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monitor, balancer = NTKMonitor(every_n_steps=5), NTKBalancer(every_n_steps=2)
    start, end = lines(caplog, monitor, balancer, logger=CSVLogger("logs"), steps=8)
    folder = Path("logs") / "lightning_logs" / "version_0"
    assert start == (
        "NTKMonitor, NTKBalancer: pde 6 rows, bc 4 rows; measured every 5 steps; weighed by "
        f'traces (convention="{balancer.rule.convention}") every 2 steps; logged to {folder}.'
    )
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in balancer.weights.items())
    known = "NTKMonitor, NTKBalancer: 3 measurements, 4 updates; last weights "
    assert end.startswith(f"{known}{weights}; ")
    assert end.endswith(" % of the time.")
    assert max(map(len, (start, end))) <= 200


def test_what_stands_in_for_a_logger_is_no_place(caplog: pytest.LogCaptureFixture):
    start, _ = lines(caplog, NTKMonitor(), logger=True, fast_dev_run=2)
    assert start.endswith("; no logger, so in .history only.")


def test_each_fit_has_its_own(caplog: pytest.LogCaptureFixture):
    monitor = NTKMonitor()
    for _ in range(2):
        start, end = lines(caplog, monitor, steps=3)
        assert start == (
            "NTKMonitor: pde 6 rows, bc 4 rows; measured every 1000 steps, no weights set; no "
            "logger, so in .history only."
        )
        assert end.startswith("NTKMonitor: 2 measurements; ")


def test_a_fit_that_ends_before_or_fails_in_the_first_measurement_says_so(
    caplog: pytest.LogCaptureFixture,
):
    with pytest.warns(NTKWarning, match="ZeroDivisionError"):
        (only,) = lines(caplog, NTKMonitor(residuals=lambda module, batch: 1 // 0), steps=3)
    assert only == "NTKMonitor: nothing was measured in this fit."

    def stop(*_: Any) -> None:
        raise RuntimeError("power cut")

    caplog.clear()
    with caplog.at_level("INFO"), pytest.raises(RuntimeError, match="power cut"):
        fit(build(), NTKMonitor(), calling(on_train_batch_start=stop))
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("NTK")] == [only]


def test_what_is_no_fit_is_not_spoken_of(caplog: pytest.LogCaptureFixture):
    def stop(*_: Any) -> None:
        raise RuntimeError("power cut")

    run = trainer(NTKMonitor(), calling(on_validation_start=stop))
    with caplog.at_level("INFO"), pytest.raises(RuntimeError, match="power cut"):
        run.validate(Validated(), DataLoader([batch()], batch_size=None), verbose=False)
    assert not [r for r in caplog.records if r.getMessage().startswith("NTK")]


@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning.pytorch"])
def test_whoever_asks_lightning_for_silence_has_it(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "level", logging.ERROR)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    fit(build(), NTKMonitor(), steps=2)
    monkeypatch.undo()
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert "NTK" not in "".join(capfd.readouterr())


def test_other_ranks_are_silent(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    from lightning_utilities.core.rank_zero import rank_zero_only

    original = Pinn.on_train_start
    monkeypatch.setattr(
        Pinn, "on_train_start", lambda self: (setattr(rank_zero_only, "rank", 1), original(self))
    )
    try:
        assert lines(caplog, NTKBalancer(), steps=2) == []
    finally:
        rank_zero_only.rank = 0


def test_several_of_a_kind_are_told_apart_by_their_prefix(caplog: pytest.LogCaptureFixture):
    both = NTKMonitor(every_n_steps=1), NTKMonitor(every_n_steps=2, prefix="probe"), NTKBalancer()
    first, last = lines(caplog, *both, steps=2)
    assert first.startswith("NTKMonitor (ntk), NTKMonitor (probe), NTKBalancer: pde")
    assert last.startswith("NTKMonitor (ntk), NTKMonitor (probe), NTKBalancer: 2 measurements, 2 m")


def test_many_terms_and_steps_are_counted():
    rows = {f"term_{i}": i for i in range(12)}
    said = start_line(rows, [("NTKMonitor", "measured")], ["a", "b"])
    assert said == (
        "NTKMonitor: term_0 0 rows, term_1 1 row, term_2 2 rows, term_3 3 rows and 8 more; "
        "measured; logged to a and b."
    )
    weights = {f"term_{i}": 10.0**i for i in range(6)}
    assert end_line([Done("NTKBalancer", "update", 1)], weights, 0.0) == (
        "NTKBalancer: 1 update; last weights term_0 1, term_1 10, term_2 100, term_3 1000 and 2 "
        "more; under 0.1 % of the time."
    )


@pytest.mark.parametrize(
    ("options", "last", "said"),
    [
        ({}, 99, "every 500 steps"),
        ({"every_n_steps": 1}, None, "every step"),
        ({"per_decade": 3, "budget": 0.02}, 99, "3 times per factor of ten in steps within 2 % of"),
        ({"steps": [5, 0, 7]}, 99, "at steps 0, 5, 7"),
        ({"steps": range(0, 90, 10)}, 99, "at steps 0, 10, 20, 30 and 5 more"),
        ({"steps": [5, 100]}, 99, "at step 5"),
        ({"steps": [100]}, 99, "at no step (100 lies behind 99)"),
        ({"steps": [100]}, None, "at step 100"),
    ],
)
def test_schedules_in_words(options: dict[str, Any], last: int | None, said: str):
    schedule = Schedule("NTKMonitor", **({"every_n_steps": 500} | options))
    assert timing(schedule, last).startswith(said)


@pytest.mark.parametrize(
    ("callback", "steps", "said"),
    [
        (NTKMonitor, [3], "at step 3, and at the first and the last step"),
        (NTKMonitor, [0, 3, 9], "at steps 0, 3, and at the last step"),
        (NTKMonitor, [0, 5], "at steps 0, 5"),
        (NTKMonitor, [9], "at the first and the last step (9 lies behind 5)"),
        (NTKBalancer, [3], "at step 3, and at the first step"),
        (NTKBalancer, [0, 3], "at steps 0, 3"),
        (NTKBalancer, [9, 12], "at the first step (9 lies behind 5)"),
    ],
)
def test_steps_besides_those_listed_are_said(
    caplog: pytest.LogCaptureFixture, callback: Any, steps: list[int], said: str
):
    acting = callback(steps=steps)
    start, end = lines(caplog, acting, steps=6)
    assert re.search(rf" {re.escape(said)}[,;] no ", start)
    done = {int(step) for tag in acting.history for step in acting.history[tag][:, 0]}
    assert done == {0} | {s for s in steps if s < 6} | ({5} if callback is NTKMonitor else set())
    assert f": {len(done)} " in end


def test_callbacks_show_their_settings():
    assert repr(NTKMonitor()) == "NTKMonitor()"
    assert repr(NTKMonitor(every_n_steps=500)) == "NTKMonitor(every_n_steps=500)"
    shown = repr(NTKBalancer(params="net.*", ema=0.5))
    assert shown == "NTKBalancer(ema=0.5, params='net.*')"
    assert repr(NTKMonitor(probe="residuals", steps=[1, 2])) == (
        "NTKMonitor(steps=[1, 2], probe='residuals')"
    )
