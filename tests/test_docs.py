"""The code in docs/ runs as it stands there, and prints what is printed there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pinn_ntk
from pinn_ntk.callbacks import NTKBalancer, NTKMonitor
from tests.pinn import batch, build, fit
from tests.scripts import ROOT, run, sources
from tests.tag_table import DOCS, DOCSTRING, found, table


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def blocks(name: str, kind: str = "python") -> list[str]:
    """Fenced blocks of a page."""
    return re.findall(rf"```{kind}\n(.*?)```", page(name), re.DOTALL)


def test_the_module_of_getting_started_runs(tmp_path: Path):
    code, *_ = blocks("getting-started")
    assert code.count("* 3000") == 1
    shown = """
monitor = next(c for c in trainer.callbacks if isinstance(c, NTKMonitor))
print("TERMS", sorted(monitor.spectra), monitor.history["ntk/trace/pde"][:, 0])
"""
    done = run(sys.executable, "-c", code.replace("* 3000", "* 4") + shown, cwd=tmp_path)
    assert "TERMS ['clamped', 'level', 'pde'] [0. 3.]" in done.stdout
    assert "NTKWarning" not in done.stderr
    assert list((tmp_path / "lightning_logs").rglob("events.out.tfevents.*"))


def test_the_diagnostic_of_getting_started_arrives_everywhere(tmp_path: Path):
    _, code, _ = blocks("getting-started")
    body = code[code.index("class LargestResidual") : code.index("monitor =")]
    assert len(body.strip().splitlines()) <= 20, "the page promises a short one"
    space: dict[str, Any] = {"NTKMonitor": NTKMonitor}
    exec(code, space)  # noqa: S102 - the text of the documentation
    monitor, logger = space["monitor"], TensorBoardLogger(tmp_path)
    trainer = fit(build(), monitor, steps=3, logger=logger)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    events = EventAccumulator(logger.log_dir, {"tensors": 0, "images": 0}).Reload()
    assert [event.step for event in events.Scalars("ntk/largest_residual/pde")] == [0, 2]
    assert [event.step for event in events.Images("ntk/figure/largest_residual")] == [2]
    summary = events.Tensors("ntk/summary/text_summary")[-1].tensor_proto.string_val[0].decode()
    last = float(monitor.history["ntk/largest_residual/pde"][-1, 1])
    assert f"- largest_residual/pde: {last:.2g}" in summary
    assert "ntk/largest_residual/pde" in trainer.callback_metrics
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)["callbacks"][monitor.state_key]
    assert saved["history"]["ntk/largest_residual/pde"].tolist()[-1] == [2, last]


def test_the_rule_of_getting_started_balances():
    *_, code = blocks("getting-started")
    space: dict[str, Any] = {"pinn_ntk": pinn_ntk}
    exec(code, space)  # noqa: S102 - the text of the documentation
    module = build()
    residuals = module.residuals(batch())
    look = pinn_ntk.look(None, module, residuals=residuals)
    top = {name: float(look.kernel.diagonal(name).max()) for name in residuals}
    balancer = NTKBalancer(rule=space["Loudest"]())
    fit(module, balancer, steps=1)
    assert balancer.weights == pytest.approx({n: sum(top.values()) / c for n, c in top.items()})


def test_tables_of_tags_are_those_of_the_diagnostics():
    for file in (DOCSTRING, DOCS):
        assert found(file) == table(file), "run: python -m tests.tag_table"


def test_paths_in_the_page_on_architecture_exist():
    text = page("architecture")
    folders = "pinn_ntk|callbacks|tests|docs|examples|studies|configs"
    paths = set(re.findall(rf"`((?:{folders})/[^`]*)`", text))
    assert len(paths) > 30
    everywhere = {file.name for file in sources("pinn_ntk", "callbacks")}
    assert set(re.findall(r"`(\w+\.py)`", text)) - everywhere == set()
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert len(text.splitlines()) < 120


def test_names_on_the_page_on_architecture_stand_in_their_files():
    for path, name in (
        ("callbacks/base.py", "class KernelCallback"),
        ("callbacks/step/term_finder.py", "def find"),
        ("pinn_ntk/graph/terms/loss_nodes.py", "_RULES"),
        ("pinn_ntk/diagnostics/summary.py", "ORDER"),
        ("callbacks/trainer/migrate.py", "VERSION"),
    ):
        assert path in page("architecture")
        assert name in (ROOT / path).read_text()


def test_what_the_kernel_says_prints_what_it_says(tmp_path: Path):
    code, outputs = (blocks("what-the-kernel-says", kind) for kind in ("python", "text"))
    assert len(outputs) == 7
    number = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
    printed = run(sys.executable, "-c", "\n".join(code), cwd=tmp_path).stdout
    expected = "".join(outputs)
    assert number.sub("#", printed) == number.sub("#", expected)
    values = [[float(found) for found in number.findall(one)] for one in (printed, expected)]
    assert values[0] == pytest.approx(values[1], rel=0.5)  # rounding moves what lies near the floor


def test_the_loop_on_the_page_of_the_verdict_prints_what_it_says(tmp_path: Path):
    (code,), (output,) = blocks("verdict"), blocks("verdict", "text")
    assert run(sys.executable, "-c", code, cwd=tmp_path).stdout == output
