"""What stands in the files of loggers, and what a plain loop gives: reports for `run.py`."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch

Spectra: TypeAlias = dict[tuple[str, int], list[float]]
"""Tag and step -> eigenvalues."""

BLOCK, HEADER = 32768, 7
"""Of the log that Weights & Biases writes: records in blocks, as in LevelDB's."""


def records(path: Path) -> Iterator[bytes]:
    """Records of a ``.wandb`` file."""
    data, at, record = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in {1, 4}:  # whole, or the last part
            yield record
            record = b""


def in_wandb(folder: Path) -> tuple[dict[str, list[int]], dict[str, list[dict[str, Any]]]]:
    """Key -> steps, and key -> what tells of each table and image."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("*.wandb")
    found: dict[str, list[int]] = {}
    media: dict[str, list[dict[str, Any]]] = {}
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        row: dict[str, Any] = {}
        for item in record.history.item:
            key, *more = item.nested_key or [item.key]
            value = json.loads(item.value_json)
            if more:
                row.setdefault(key, {})["/".join(more)] = value
            else:
                row[key] = value
        for key, value in row.items():
            if isinstance(value, dict):
                media.setdefault(key, []).append(value)
            else:
                found.setdefault(key, []).append(int(row.get("trainer/global_step", -1)))
    return found, media


def tables_in_wandb(folder: Path, media: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """Key -> rows of all tables of it, as they lie in the folder of the run."""
    (files,) = folder.rglob("offline-run-*/files")
    tables: dict[str, list[Any]] = {}
    for key, facts in media.items():
        for fact in facts:
            if fact["_type"] == "table-file":
                table = json.loads((files / fact["path"]).read_text())
                tables.setdefault(key, []).extend(table["data"])
            else:
                assert all((files / name).stat().st_size for name in fact["filenames"])
    return tables


def in_mlflow(uri: str, folder: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Key -> steps, and file -> its path here."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    run_id = run.info.run_id
    keys = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    steps = {key: [metric.step for metric in metrics] for key, metrics in keys.items()}
    folder.mkdir()
    got = Path(client.download_artifacts(run_id, "", str(folder)))
    files = {str(path.relative_to(got)): str(path) for path in got.rglob("*") if path.is_file()}
    return steps, files


def in_csv(folder: Path) -> dict[str, list[int]]:
    """Key -> steps."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: [int(row["step"]) for row in rows if row[key]] for key in rows[0]}


def of_ours(steps: dict[str, list[int]]) -> dict[str, list[int]]:
    return {key: at for key, at in sorted(steps.items()) if key.startswith("ntk/")}


def in_tensorboard(folder: Path) -> tuple[dict[str, list[int]], list[str], Spectra]:
    """Scalar -> steps, what else there is, and spectra."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    (path,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(path), {"scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    scalars = {tag: [event.step for event in events.Scalars(tag)] for tag in tags["scalars"]}
    spectra = {
        (tag, event.step): tensor_util.make_ndarray(event.tensor_proto).tolist()
        for tag in tags["tensors"]
        if "/spectrum/" in tag
        for event in events.Tensors(tag)
    }
    return scalars, sorted(tags["tensors"] + tags["images"]), spectra


def of_tables(tables: dict[str, list[Any]]) -> Spectra:
    """Spectra in tables of Weights & Biases."""
    found: Spectra = {}
    for key, rows in tables.items():
        if "/spectrum/" in key:
            for step, index, value in rows:
                values = found.setdefault((key, step), [])
                assert index == len(values)
                values.append(value)
    return found


def of_files(files: dict[str, str]) -> Spectra:
    """Spectra in files of MLflow."""
    found: Spectra = {}
    for name, path in files.items():
        if name.endswith(".json"):
            content = json.loads(Path(path).read_text())
            found[name.rpartition("/")[0], content["step"]] = content["eigenvalues"]
    return found


def of_loggers(made: ModuleType) -> dict[str, Any]:
    """Keys and steps in the files of each logger, when the process that trained is over."""
    done = subprocess.run([sys.executable, str(made.__file__)], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-3000:])
    logs = Path("logs")
    tensorboard, more, spectra = in_tensorboard(logs)
    mlflow, files = in_mlflow("sqlite:///mlflow.db", Path("downloaded"))
    wandb, media = in_wandb(logs)
    tables = tables_in_wandb(logs, media)
    written = of_tables(tables), of_files(files)
    rounded = [{key: torch.tensor(values).tolist() for key, values in w.items()} for w in written]
    keys = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow, "csv": in_csv(logs)}
    found = {logger: of_ours(steps) for logger, steps in keys.items()}
    return {
        "scalars": {logger: len(of) for logger, of in found.items()},
        "ntk/trace/pde": {logger: of["ntk/trace/pde"] for logger, of in found.items()},
        "ntk/weight/pde": {logger: of["ntk/weight/pde"] for logger, of in found.items()},
        "all alike": all(of == found["tensorboard"] for of in found.values()),
        "more in tensorboard": more,
        "tables in wandb": {key: sorted({row[0] for row in rows}) for key, rows in tables.items()},
        "images in wandb": sorted(media.keys() - tables.keys()),
        "files in mlflow": sorted(files),
        "spectra alike": len(spectra) > 0 and all(each == spectra for each in rounded),
    }


def of_plain_loop(made: ModuleType) -> dict[str, Any]:
    """With the monitor, without it, and balanced."""
    plain, monitored = made.train(monitored=False), made.train()
    balanced = made.train(balanced=True)
    nets = [
        torch.cat([p.detach().flatten() for p in run[0].parameters()])
        for run in (plain, monitored, balanced)
    ]
    monitor = monitored[1]
    certificates = monitor.seen.kernel.certificate.values()
    return {
        "terms": {term: r.numel() for term, r in monitor.seen.residuals.items()},
        "certificate": float(f"{max(certificates):.3g}"),
        "verdict": str(monitor.verdicts[-1]).splitlines(),
        "weights": {t: float(f"{w:.3g}") for t, w in balanced[2].as_dict().items()},
        "bit_identical": torch.equal(nets[0], nets[1]),
        "balancing_acts": not torch.equal(nets[0], nets[2]),
    }
