"""Both names of Lightning, ``pytorch_lightning`` and ``lightning.pytorch``, together and alone.

Every check is a function of one of the two packages. With both installed it runs here; with the
other one blocked all of them run in an interpreter of their own, which starts at the bottom.
"""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.scripts import ROOT, python

OTHERS = {
    "pytorch_lightning": {"lightning"},
    "lightning.pytorch": {"pytorch_lightning", "lightning_fabric"},
}
X = torch.tensor([[0.2], [0.5], [0.9]], dtype=torch.float64)


def model_class(lightning: ModuleType) -> Any:
    """Two linear residuals, so that kernels are known: a = w x + b (3 rows), 2 (w + b) (1 row)."""

    class Linear(lightning.LightningModule):
        def __init__(self, optimizer: str = "SGD", lr: float = 0.01) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.net, self.optimizer, self.lr = nn.Linear(1, 1).double(), optimizer, lr

        def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
            losses = {
                "pde": self.net(x).square().mean(),
                "bc": (2 * self.net(torch.ones_like(x[:1]))).square().mean(),
            }
            self.log_dict(losses)
            return losses["pde"] + losses["bc"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return getattr(torch.optim, self.optimizer)(self.net.parameters(), lr=self.lr)

        def train_dataloader(self) -> DataLoader:
            return DataLoader([X], batch_size=None)  # an epoch a step

    return Linear


TRACES = {"pde": float((X**2 + 1).sum()), "bc": 8.0}
"""By hand: (d/dw, d/db) of the rows are (x, 1) and (2, 2); the same at every step."""

MEANS = {"pde": TRACES["pde"] / len(X), "bc": 8.0}


def run(lightning: ModuleType, callbacks: Any, steps: int = 4, **options: Any) -> Any:
    """A Trainer of the package, not fitted yet."""
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options |= dict.fromkeys(silent, False)
    return lightning.Trainer(accelerator="cpu", max_steps=steps, callbacks=callbacks, **options)


def check_callbacks(lightning: ModuleType, folder: Path) -> None:
    """In a list and alone, measured and weighted as by hand."""
    from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

    monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=2)
    assert isinstance(monitor, lightning.Callback)
    assert isinstance(balancer, lightning.Callback)
    weighted = model_class(lightning)()
    trainer = run(lightning, [monitor, balancer])
    trainer.fit(weighted)
    for term, trace in TRACES.items():
        measured = monitor.history[f"ntk/trace/{term}"]
        assert measured[:, 0].tolist() == [0.0, 2.0, 3.0]
        assert measured[:, 1].tolist() == pytest.approx([trace] * 3, rel=1e-12)
        weight = sum(MEANS.values()) / MEANS[term]
        assert balancer.weights[term] == pytest.approx(weight, rel=1e-12)
        assert trainer.callback_metrics[f"ntk/trace/{term}"].item() == measured[-1, 1]

    alone = NTKMonitor(every_n_steps=2)
    plain = model_class(lightning)()
    run(lightning, alone).fit(plain)
    assert alone.history["ntk/trace/bc"][:, 1].tolist() == pytest.approx([8.0] * 3, rel=1e-12)
    assert not torch.equal(plain.net.weight, weighted.net.weight)

    bare = model_class(lightning)()
    run(lightning, None).fit(bare)
    assert torch.equal(plain.net.weight, bare.net.weight)


def check_checkpoints(lightning: ModuleType, folder: Path) -> None:
    """A run that stops and goes on ends as one that does not, history included."""
    from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

    def fit(steps: int, ckpt_path: str | None = None) -> tuple[Any, Any, Any]:
        monitor, balancer = NTKMonitor(every_n_steps=2), NTKBalancer(every_n_steps=3)
        module = model_class(lightning)()
        trainer = run(lightning, [monitor, balancer], steps, default_root_dir=folder)
        trainer.fit(module, ckpt_path=ckpt_path)
        trainer.save_checkpoint(folder / f"{steps}.ckpt")
        return module, monitor, balancer

    fit(5)
    module, monitor, balancer = fit(9, ckpt_path=str(folder / "5.ckpt"))
    whole, whole_monitor, whole_balancer = fit(9)
    assert torch.equal(module.net.weight, whole.net.weight)
    assert balancer.weights == whole_balancer.weights
    for tag in ("ntk/trace/pde", "ntk/drift/parameters"):
        expected = dict(whole_monitor.history[tag].tolist())
        got = dict(monitor.history[tag].tolist())
        assert {step: got[step] for step in expected} == expected


def check_cli(lightning: ModuleType, folder: Path) -> None:
    """LightningCLI builds the callbacks from a file and from arguments, and fits with them."""
    from pinn_ntk.callbacks import NTKBalancer, NTKMonitor

    cli = import_module(f"{lightning.__name__}.cli")
    (folder / "config.yaml").write_text(
        """
        trainer:
          accelerator: cpu
          max_steps: 3
          logger: false
          enable_checkpointing: false
          enable_progress_bar: false
          enable_model_summary: false
          callbacks:
            - class_path: pinn_ntk.callbacks.NTKMonitor
              init_args: {steps: [0, 2], budget: 0.5, params: net.*, names: [pde, bc]}
            - class_path: pinn_ntk.callbacks.NTKBalancer
              init_args: {per_decade: 3, include: [pde, bc], residuals: null, max_weight: 1.0e+3}
        """
    )
    arguments = ["fit", "--config", str(folder / "config.yaml"), "--model.lr=0.02"]
    silent = {"save_config_callback": None, "seed_everything_default": False}
    built = cli.LightningCLI(model_class(lightning), args=arguments, **silent)
    kinds = (NTKMonitor, NTKBalancer)
    monitor, balancer = [ours for ours in built.trainer.callbacks if isinstance(ours, kinds)]
    assert (built.model.lr, monitor.schedule.steps, balancer._update.limits.max_weight) == (
        0.02,
        {0, 2},
        1e3,
    )
    assert monitor.history["ntk/trace/bc"].tolist() == [[0.0, 8.0], [2.0, 8.0]]
    assert balancer.weights["bc"] == pytest.approx(1 + MEANS["pde"] / MEANS["bc"], rel=1e-12)

    by_arguments = [
        "--trainer.accelerator=cpu",
        "--trainer.callbacks=pinn_ntk.callbacks.NTKMonitor",
        "--trainer.callbacks.residuals=somebody.elses.function",
        "--trainer.callbacks.per_decade=2",
        "--trainer.callbacks+=pinn_ntk.callbacks.NTKBalancer",
        "--trainer.callbacks.every_n_steps=7",
    ]
    built = cli.LightningCLI(model_class(lightning), run=False, args=by_arguments, **silent)
    monitor, balancer = [ours for ours in built.trainer.callbacks if isinstance(ours, kinds)]
    assert (monitor.schedule.per_decade, balancer.schedule.every_n_steps) == (2, 7)


def check_refusals(lightning: ModuleType, folder: Path) -> None:
    """What is refused is refused by an exception that the package knows."""
    from pinn_ntk.callbacks import NTKBalancer
    from pinn_ntk.callbacks.trainer.flavours import MisconfigurationException, rank_zero_info

    known = import_module(f"{lightning.__name__}.utilities.exceptions").MisconfigurationException
    with pytest.raises(known, match=r"pinn_ntk\.LossWeights"):
        run(lightning, NTKBalancer()).fit(model_class(lightning)(optimizer="LBFGS"))
    assert issubclass(MisconfigurationException, known)
    assert rank_zero_info.__module__ == "lightning_utilities.core.rank_zero"


CHECKS = [check_callbacks, check_checkpoints, check_cli, check_refusals]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("package", sorted(OTHERS))
def test_with_both_installed(
    check: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["pytest"])  # LightningCLI wonders about others
    check(import_module(package), tmp_path)


@pytest.mark.parametrize("package", sorted(OTHERS))
def test_with_one_of_them_alone(package: str, tmp_path: Path):
    printed = python(Path(__file__), package, tmp_path).stdout
    assert printed.splitlines()[-1] == f"{len(CHECKS)} checks of {package} alone"


def test_with_both_installed_ours_are_of_both():
    from pinn_ntk.callbacks.trainer.flavours import Callback, MisconfigurationException

    for package in OTHERS:
        exceptions = import_module(f"{package}.utilities.exceptions")
        assert issubclass(Callback, import_module(package).Callback)
        with pytest.raises(exceptions.MisconfigurationException, match="says why"):
            raise MisconfigurationException("says why")


def test_with_none_installed_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from pinn_ntk.callbacks.trainer.flavours import callback_class

    for package in ("pytorch_lightning", "lightning"):
        for name in [n for n in sys.modules if n.partition(".")[0] == package] + [package]:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install pytorch-lightning, or lightning"):
        callback_class()


FILES = sorted((ROOT / "callbacks").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_callbacks_import_neither_name_outright(file: Path):
    tree = ast.parse(file.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for block in node.body
        for inner in ast.walk(block)
    }
    outright = [node for node in ast.walk(tree) if id(node) not in guarded]
    imports = [node for node in outright if isinstance(node, ast.Import)]
    names = [alias.name for node in imports for alias in node.names]
    names += [node.module or "" for node in outright if isinstance(node, ast.ImportFrom)]
    packages = {name.partition(".")[0] for name in names}
    assert packages & {"pytorch_lightning", "lightning", "lightning_fabric"} == set()


class Blocked:
    """Import hook: as if these packages were not installed."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by a test)", name=name)


def main(package: str, folder: Path) -> None:
    del sys.argv[1:]
    sys.meta_path.insert(0, Blocked(OTHERS[package]))
    for blocked in OTHERS[package]:
        with pytest.raises(ModuleNotFoundError, match="blocked by a test"):
            import_module(blocked)
    for check in CHECKS:
        (folder / check.__name__).mkdir()
        check(import_module(package), folder / check.__name__)
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & OTHERS[package]
    print(len(CHECKS), "checks of", package, "alone")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
