"""The code in docs/ runs as it stands there, and prints what is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_module_of_getting_started_runs(tmp_path: Path):
    text = (ROOT / "docs" / "getting-started.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert code.count("* 3000") == 1
    script = tmp_path / "beam.py"
    script.write_text(
        code.replace("* 3000", "* 4")
        + "\nmonitor = next(c for c in trainer.callbacks if isinstance(c, NTKMonitor))"
        + "\nprint('TERMS', sorted(monitor.spectra), monitor.history['ntk/trace/pde'][:, 0])"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "TERMS ['clamped', 'level', 'pde'] [0. 3.]" in done.stdout
    assert "NTKWarning" not in done.stderr
    assert list((tmp_path / "lightning_logs").rglob("events.out.tfevents.*"))


def test_what_the_kernel_says_prints_what_it_says(tmp_path: Path):
    text = (ROOT / "docs" / "what-the-kernel-says.md").read_text()
    code, outputs = (re.findall(rf"```{k}\n(.*?)```", text, re.DOTALL) for k in ("python", "text"))
    script = tmp_path / "guide.py"
    script.write_text("\n".join(code))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    number = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
    printed, expected = done.stdout, "".join(outputs)
    assert len(outputs) == 7
    assert number.sub("#", printed) == number.sub("#", expected)
    values = [[float(found) for found in number.findall(one)] for one in (printed, expected)]
    assert values[0] == pytest.approx(values[1], rel=0.5)  # rounding moves what lies near the floor
