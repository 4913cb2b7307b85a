"""The file in docs/getting-started.md runs as it stands there, only shorter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
