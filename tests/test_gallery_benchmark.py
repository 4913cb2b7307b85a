"""The benchmark of the gallery, shrunk: what it trains, keeps and concludes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    gallery,
    gallery_beforehand,
    gallery_default,
    gallery_page,
    gallery_problems,
    gallery_run,
)
from benchmarks.gallery_problems import DESIGNS, PROBLEMS, RULES, SETTINGS, SPARSER, balancer_of
from benchmarks.gallery_run import Task, train
from benchmarks.gallery_table import decided, decided_setting, harm, medians, worst_cases
from pinn_ntk.callbacks import NTKBalancer
from tests.scripts import ROOT

PAGE, README = ROOT / "docs" / "gallery.md", ROOT / "README.md"


def run(problem: str, column: str, *errors: float | None, seconds: float = 1.0, **more: Any) -> Any:
    """Runs of one cell, a seed each."""
    return [
        {
            "problem": problem,
            "design": DESIGNS[0],
            "column": column,
            "seed": seed,
            "error": error,
            "best": error,
            "best_step": 10,
            "seconds": seconds,
            "course": [[1, 0.1, 1.0], [10, 0.5, error]],
            "weights": {"loss_b": 2.0},
            "rows": {"loss_b": 2, "loss_r": 4},
            "end": {"lr": 1.0, "max_stable_lr": 2.0, "verdict": 23.0},
            "start": {"trace/loss_b": 2.0, "trace/loss_r": 40.0, "effective_rank/loss_b": 1.5},
            **more,
        }
        for seed, error in enumerate(errors)
    ]


def made(table: dict[str, dict[str, float | None]], **more: Any) -> list[Any]:
    return [
        one
        for problem, of in table.items()
        for column, error in of.items()
        for one in run(problem, column, error, **more)
    ]


# --- The table


def test_medians_count_all_seeds_and_those_that_diverged():
    runs = [*run("a", "none", 1.0, 3.0, 2.0), *run("a", "trace", 0.1, None, None)]
    assert medians(runs) == {("a", DESIGNS[0]): {"none": 2.0, "trace": math.inf}}


def test_worst_cases_are_ratios_to_the_best_rule_and_to_none():
    table = medians(made({
        "a": {"none": 1.0, "trace": 0.1, "other": 0.2},
        "b": {"none": 0.2, "trace": 0.4, "other": 0.1},
        "c": {"none": 0.2, "trace": 0.1},  # not all rules have it yet
    }))  # fmt: skip
    columns = ["none", "trace", "other"]
    assert worst_cases(table, columns) == pytest.approx({"none": 10.0, "trace": 4.0, "other": 2.0})
    assert harm(table, ["trace", "other"]) == pytest.approx({"trace": 2.0, "other": 0.5})


DECISIONS: dict[str, tuple[dict[str, dict[str, float | None]], str]] = {
    "smallest worst case": (
        {
            "a": {"none": 1.0, "trace": 0.1, "other": 0.3},
            "b": {"none": 1.0, "trace": 0.8, "other": 0.2},
        },
        "other",
    ),
    "one that harms drops out": (
        {
            "a": {"none": 1.0, "trace": 0.1, "other": 0.9},
            "b": {"none": 0.2, "trace": 0.31, "other": 0.2},
        },
        "other",
    ),
    "where all harm, the least": (
        {"a": {"none": 0.1, "trace": 0.2, "other": 0.3}},
        "trace",
    ),
    "none is never taken": ({"a": {"none": 0.1, "trace": 0.12, "other": 0.13}}, "trace"),
    "one that diverged": (
        {
            "a": {"none": 1.0, "trace": None, "other": 0.9},
            "b": {"none": 1, "trace": 0.1, "other": 1},
        },
        "other",
    ),
}


@pytest.mark.parametrize(("table", "rule"), DECISIONS.values(), ids=list(DECISIONS))
def test_the_rule_that_follows(table: dict[str, dict[str, float | None]], rule: str):
    assert decided(made(table), ["none", "trace", "other"]) == rule


def test_of_two_that_are_equal_the_cheaper_one_is_taken():
    runs = [
        *made({"a": {"none": 1.0}}),
        *made({"a": {"trace": 0.100}}, seconds=5.0),
        *made({"a": {"other": 0.105}}, seconds=2.0),
    ]
    assert decided(runs, ["none", "trace", "other"]) == "other"


@pytest.mark.parametrize(("error", "setting"), [(0.95, "trace"), (0.5, "trace + ema 0")])
def test_settings_of_the_table_stay_unless_others_are_clearly_better(error: float, setting: str):
    runs = made({"a": {"trace": 1.0, "trace + ema 0": error}})
    assert decided_setting(runs, ["trace", "trace + ema 0"]) == setting


# --- What is trained


def test_every_column_is_a_balancer_and_every_problem_an_example():
    columns = [*RULES, *(f"trace + {setting}" for setting in SETTINGS | SPARSER)]
    balancers = [repr(NTKBalancer(**balancer_of(column))) for column in columns]
    assert len(set(balancers)) == len(columns)
    scripts = {file.stem for file in (ROOT / "examples").glob("*.py")}
    assert {problem.script for problem in PROBLEMS} == scripts
    assert len(gallery.tasks(RULES)) == len(RULES) * len(PROBLEMS) * 4 == gallery_default.WHOLE


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gallery_problems, gallery_run):
        monkeypatch.setattr(module, "STEPS", 3)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.script)
def test_a_problem_is_trained_with_its_boundary_cut(problem: gallery_problems.GalleryProblem):
    all_points, few = (problem.build(design, 0)[1].draw(1) if problem.script != "poisson"
                       else problem.build(design, 0)[1].train for design in DESIGNS)  # fmt: skip
    smaller = {name for name in all_points if len(few[name]) < len(all_points[name])}
    assert smaller
    for name in smaller - {"u"}:  # of the wave, that has the initial line besides
        assert len(few[name]) * 10 == len(all_points[name])


@pytest.mark.usefixtures("short")
def test_a_run_keeps_what_came_out():
    record = train(Task("Helmholtz 2-D", DESIGNS[1], "trace", 1))
    assert record.rows == {"loss_b": 10, "loss_r": 400}
    assert [step for step, *_ in record.course] == [1]
    assert set(record.weights) == {"loss_b", "loss_r"}
    assert record.start["trace/loss_r"] > 0
    assert {"lr", "max_stable_lr", "verdict"} <= record.end.keys()
    assert math.isfinite(record.error)
    assert record.seconds > 0
    assert json.loads(json.dumps(record.as_json()))["seed"] == 1


@pytest.mark.usefixtures("short")
def test_rules_begin_alike_and_end_apart_and_poisson_is_trained_by_adam():
    names = ("none", "trace", "gradient_norm")
    records = [train(Task("Poisson 1-D, a = 4", DESIGNS[0], name, 0)) for name in names]
    assert len({json.dumps(record.start) for record in records}) == 1
    assert len({record.error for record in records}) == 3
    assert all(record.end["lr"] == pytest.approx(2e-3, rel=1e-2) for record in records)


def test_what_was_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made_now: list[str] = []

    class Here:
        """Trains in this process."""

        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: Any) -> None: ...
        def submit(self, _: Any, task: Task) -> Any:
            made_now.append(task.key)
            (one,) = run(task.problem, task.column, 0.5)
            record = {**one, "design": task.design, "seed": task.seed}
            known = {**record, "best": 0.5, "best_step": 1}
            return type("Done", (), {"result": lambda _: gallery_run.Record(**known)})()

    monkeypatch.setattr(gallery, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(gallery, "as_completed", list)
    path = tmp_path / "gallery.json"
    gallery.main(["helm", "--json", str(path)])
    assert len(made_now) == len(RULES) * 4
    made_now.clear()
    report = json.loads(path.read_text())
    report["runs"] = report["runs"][5:]
    path.write_text(json.dumps(report))
    gallery.main(["helm", "--json", str(path)])
    assert len(made_now) == 5
    assert len(gallery.kept(path)) == len(RULES) * 4


# --- The page


def test_the_page_holds_all_numbers(tmp_path: Path):
    runs = [
        one
        for problem in PROBLEMS
        for column, error in zip(RULES, (1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, None), strict=True)
        for one in run(problem.title, column, error, error, error)
    ]
    path, figure, readme = (tmp_path / name for name in ("gallery.md", "gallery.png", "README.md"))
    for file in (path, readme):
        file.write_text(f"# Head\n\n{gallery_page.BEGIN}\nold\n{gallery_page.END}\n\nfoot\n")
    gallery_page.page(runs, path, figure, readme)
    text = path.read_text()
    assert text.startswith("# Head")
    assert text.endswith("foot\n")
    assert "old" not in text
    assert f"{len(runs)} of {gallery_default.WHOLE} runs" in text
    assert "| Burgers | 1 (1, 1) | 0.1 (0.1, 0.1) |" in text
    assert "diverged" in text
    assert "| trace | 1 | 0.1 |" in text
    assert "So far" in text  # the other design is missing
    assert "b 1, r 10" in text  # traces a row
    assert "| Burgers | nothing wrong is seen (3) | 1 | 10 (trace) | 0 (pointwise) |" in text
    shown = readme.read_text()
    assert "| Burgers | 1 (1, 1) | 0.1 (0.1, 0.1) | 0.1 (trace) |" in shown
    assert "old" not in shown
    assert figure.stat().st_size > 10_000


def test_rank_correlations_are_those_of_the_ranks():
    runs = []
    for i, problem in enumerate(PROBLEMS, start=1):
        start = {"trace/loss_b": 1.0, "trace/loss_r": 2.0 * i}  # a ratio of i a row
        weights = {"loss_b": 1.0, "loss_r": 100.0 / i}
        for column, error in (("none", 1.0), ("trace", 1.0 / i**2)):
            runs += run(problem.title, column, error, start=start, weights=weights)
    text = gallery_beforehand.correlations(runs)
    assert "last column is 1.00" in text
    assert "at the end it is -1.00" in text
    assert "yet" in gallery_beforehand.correlations(runs[:-2])


def test_the_page_says_what_settings_do():
    assert gallery_default.settings(run("Burgers", "trace", 0.1), "trace") == ""
    errors = {"trace": 0.1, **{f"trace + {s}": 0.2 for s in SETTINGS}}
    runs = made({"Burgers": errors, "Allen-Cahn": errors})
    text = gallery_default.settings(runs, "trace")
    assert "| Burgers | 0.1 | 0.2 | 0.2 | 0.2 | 0.2 | - |" in text
    assert "| trace + ema 0 | 2 |" in text
    assert "those of **trace**" in text
    assert "geometric mean" not in text
    runs += [*run("Burgers", "trace + every 500, ema 0.6, no bound", 0.4)]
    runs += [*run("Allen-Cahn", "trace + every 500, ema 0.6, no bound", 0.1)]
    text = gallery_default.settings(runs, "trace")
    assert "is 2 in the geometric mean, 1 to 4." in text


def test_the_page_and_readme_are_made_of_the_results():
    runs = list(gallery.kept(gallery.RESULTS).values())
    for file, made in ((PAGE, gallery_page.body(runs)), (README, gallery_page.summary(runs))):
        between = file.read_text().partition(gallery_page.BEGIN)[2].partition(gallery_page.END)[0]
        assert between.strip() == made
