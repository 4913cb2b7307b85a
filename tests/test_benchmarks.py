"""The benchmarks, shrunk: what they compute and report is right; no test asserts a time."""

from __future__ import annotations

import functools
import gc
import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from benchmarks import components, measure, overhead, peers
from benchmarks import kernel as bench
from benchmarks.measure import Contestant, Record, Timing
from benchmarks.report import ROOT, SCHEMA, environment, torch_config
from pinn_ntk.graph.reference import reference_ntk

CPU = torch.device("cpu")
MB = 10**6
WIDTH, POINTS = 6, 5
ENGINE = [
    *("training step", "backward pass", "factors", "factors, trace", "full kernel"),
    *("factors, certified", "full kernel, certified", "full kernel from scratch"),
]
PEERS = ["torch.func", "torch.func, lean", "rows in batches"]


def byte_tensor(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8)


def small(dtype: torch.dtype = torch.float64) -> peers.Problem:
    return peers.make_problem(WIDTH, POINTS, dtype, CPU)


def truth(problem: peers.Problem) -> torch.Tensor:
    return reference_ntk(problem.residual(), problem.model)["residual", "residual"]


# --- Memory


@pytest.mark.parametrize(
    ("megabytes", "peak"),
    [([100, -100], 100), ([10, -10, 30, -30, 20, -20], 30), ([10, 20, -10], 30), ([-50, 10], 10)],
    ids=["freed again", "one after another", "at the same time", "in place of what was live"],
)
def test_peak_of_known_allocations(megabytes: list[int], peak: int):
    """A negative number frees what the positive one has allocated; 50 are live before."""
    held = {50: byte_tensor(50 * MB)}

    def allocate() -> object:
        for size in megabytes:
            if size > 0:
                held[size] = byte_tensor(size * MB)
            else:
                del held[-size]
        return held

    assert measure.peak_extra_memory(allocate, CPU) == (held, peak * MB)


def test_temporaries_and_memory_of_a_backward_pass_count():
    x = torch.ones(MB, requires_grad=True)
    peak = measure.peak_extra_memory(lambda: torch.sum(x.detach().double() ** 2), CPU)[1]
    assert peak == 16 * MB  # two tensors of float64
    y = (x * x).sum()
    peak = measure.peak_extra_memory(lambda: torch.autograd.grad(y, x, retain_graph=True), CPU)[1]
    assert 4 * MB <= peak <= 16 * MB


@pytest.mark.gpu
def test_peak_on_cuda():
    device = torch.device("cuda")
    allocate = functools.partial(torch.empty, 100 * 2**20, dtype=torch.uint8, device=device)
    assert measure.peak_extra_memory(lambda: allocate().numel(), device)[1] == 100 * 2**20


# --- Time


def test_ratios_are_medians_over_common_rounds():
    assert measure.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == 3.0
    assert measure.ratio([2.0, 8.0], [1.0, 2.0, 100.0]) == 3.0
    assert measure.extra_in_units([5.0, 9.0], [3.0, 3.0, 3.0], [2.0, 2.0, 2.0]) == 2.0


def test_rounds_are_interleaved():
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = measure.interleaved(functions, repeats=4, max_seconds=60.0, device=CPU)
    assert [sorted(calls[i : i + 3]) for i in range(0, 12, 3)] == [list("abc")] * 4
    assert len({tuple(calls[i : i + 3]) for i in range(0, 12, 3)}) > 1
    assert all(len(t.wall) == len(t.cpu) == 4 for t in timings.values())
    assert all(t.minimum <= t.median for t in timings.values())


def test_limit_ends_repetitions_and_slow_contestants_run_twice(monkeypatch: pytest.MonkeyPatch):
    functions = {name: lambda: None for name in "ab"}
    timings = measure.interleaved(functions, repeats=9, max_seconds=0.0, device=CPU)
    assert [len(t.wall) for t in timings.values()] == [1, 1]
    monkeypatch.setattr(measure, "SLOW_SECONDS", 0.0)
    timings = measure.interleaved({"a": lambda: None}, repeats=9, max_seconds=60.0, device=CPU)
    assert len(timings["a"].wall) == measure.SLOW_REPEATS
    assert not Timing().enough(0.0)
    assert Timing(wall=[1.0], cpu=[1.0]).enough(1.5)
    assert not Timing(wall=[1.0], cpu=[1.0]).enough(2.0)


def test_collection_of_garbage_is_on_again_after_an_error():
    with pytest.raises(KeyError, match="no"):
        measure.interleaved({"a": lambda: {}["no"]}, repeats=1, max_seconds=1.0, device=CPU)
    assert gc.isenabled()


def test_measured_compares_with_the_truth():
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    contestants = {
        "base": Contestant(lambda: byte_tensor(MB)),
        "right": Contestant(expected.clone, lambda value, true: (value, true)),
        "wrong": Contestant(lambda: expected + 1, lambda value, true: (value, true)),
    }
    records = measure.measured(
        contestants, expected, base="base", peer="right", repeats=2, max_seconds=60.0
    )
    assert records["base"].error is None
    assert records["right"].error == 0.0
    assert records["wrong"].error == pytest.approx(2**0.5 / 5)
    assert records["base"].per_base == records["right"].speedup == 1.0
    assert records["right"].memory_per_base == 16 / MB
    assert records["base"].memory_saving == 16 / MB


# --- Peers


def test_problem_is_the_same_in_every_dtype_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    single, double = small(torch.float32), small(torch.float64)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(single.model.parameters(), double.model.parameters(), strict=True):
        assert torch.equal(a.double(), b)
    assert torch.equal(single.points.double(), double.points)
    assert small().parameters == 3 * WIDTH + 2 * WIDTH**2 + 2 * WIDTH + 1
    assert len(small().first(2).points) == 2
    assert peers.fastest_form(small(), repeats=1) in peers.SECOND_DERIVATIVES


@pytest.mark.parametrize("form", peers.SECOND_DERIVATIVES)
@pytest.mark.parametrize("way", [peers.torch_func_kernel, peers.torch_func_kernel_lean])
def test_torch_func_is_right(form: str, way, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "CHUNK_BYTES", 2 * small().parameters * 8)
    monkeypatch.setattr(peers, "BLOCK_ENTRIES", 7 * POINTS)
    assert peers.chunk_points(small()) == 2
    torch.testing.assert_close(way(small(), form), truth(small()), rtol=1e-12, atol=1e-12)


def test_rows_in_batches_and_the_true_kernel_are_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "CHUNK_ROWS", 2)
    problem, single = small(), small(torch.float32)
    for kernel in (peers.row_batched(problem, problem.residual()), bench.true_kernel(single)):
        torch.testing.assert_close(kernel, truth(problem), rtol=1e-12, atol=1e-12)


# --- The whole benchmark


def run(folder: Path, *arguments: str) -> dict:
    target = folder / "results" / "kernel.json"
    size = f"{WIDTH}x{POINTS}"
    bench.main(["--sizes", size, "--repeats", "2", "--json", str(target), *arguments])
    return json.loads(target.read_text())


def test_contestants_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = run(tmp_path)
    assert [c["dtype"] for c in report["configurations"]] == ["float32", "float64"]
    for configuration, tolerance in zip(report["configurations"], [1e-5, 1e-12], strict=True):
        errors = {name: c["error"] for name, c in configuration["contestants"].items()}
        assert list(errors) == ENGINE + PEERS
        assert [name for name, error in errors.items() if error is None] == ENGINE[:2]
        assert all(error is None or error < tolerance for error in errors.values())
    printed = capsys.readouterr().out
    assert all(printed.count(name) >= 2 for name in ENGINE + PEERS)
    assert f"w = {WIDTH}, N = {POINTS}, float32" in printed


def test_report_has_its_schema_and_threads_are_set(tmp_path: Path):
    report = run(tmp_path, "--dtype", "float64", "--threads", "2")
    assert report["environment"]["threads"] == torch.get_num_threads() == 2
    assert set(report) == {"schema", "environment", "repeats", "configurations"}
    assert (report["schema"], report["repeats"]) == (SCHEMA, 2)
    (configuration,) = report["configurations"]
    size = {"width": WIDTH, "points": POINTS, "parameters": small().parameters}
    assert (size | {"dtype": "float64", "targets": []}).items() <= configuration.items()
    assert configuration["torch_func_form"] in peers.SECOND_DERIVATIVES
    for figures in configuration["contestants"].values():
        assert set(figures) == set(Record.__dataclass_fields__)
        assert len(figures["wall_s"]) == len(figures["cpu_s"]) == 2
        assert 0 < figures["minimum_s"] <= figures["median_s"]
        assert figures["peak_bytes"] > 0
    assert configuration["contestants"]["training step"]["per_base"] == 1.0
    assert configuration["contestants"]["torch.func"]["memory_saving"] == 1.0


def test_slow_peers_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "SLOW_WORK", 0)
    monkeypatch.setattr(bench, "PARTIAL_POINTS", 3)
    report = run(tmp_path, "--skip-slow", "--dtype", "float64")
    (configuration,) = report["configurations"]
    assert list(configuration["contestants"]) == ENGINE
    for name, figures in configuration["contestants"].items():
        assert figures["speedup"] is figures["memory_saving"] is None
        assert (figures["error"] is None) == (name in ENGINE[:2])
    assert bench.wrong(configuration) == []


def test_wrong_contestants_end_the_run_with_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench, "row_batched", lambda *_: torch.eye(POINTS).double())
    with pytest.raises(SystemExit, match=r"not equal .*: rows in batches$"):
        run(tmp_path)


@pytest.mark.parametrize(
    "arguments", [["--sizes", "64"], ["--sizes", "64xa"], ["--dtype", "float16"]], ids=" ".join
)
def test_bad_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert arguments[0] in capsys.readouterr().err


# --- Targets


def record(seconds: float, peak: int = 1) -> Record:
    return Record(seconds, seconds, 1.0, None, peak, 1.0, None, None, [seconds] * 2, [seconds] * 2)


SECONDS = dict(zip(ENGINE, [10.0, 4.0, 3.0, 5.0, 20.0, 9.0], strict=False))
TIMES = {name: record(seconds) for name, seconds in SECONDS.items()}
TIMES |= {"full kernel": record(20.0, 10), "full kernel from scratch": record(40.0, 3 * 10**8)}
TIMES |= {"torch.func": record(600.0, 300), "torch.func, lean": record(500.0, 100)}


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("factors and trace, training steps", 0.5, True),
        ("full kernel, training steps", 2.0, True),
        ("torch.func (faster form) / full kernel, time", 25.0, True),
        ("torch.func / full kernel, memory", 30.0, True),
        ("torch.func, lean / full kernel, memory", 10.0, False),
        ("certificate, backward passes", 1.5, False),
        ("full kernel from scratch, seconds", 40.0, False),
        ("full kernel from scratch, MB", 300.0, False),
    ],
)
def test_target_is_judged(text: str, value: float, met: bool):
    (target,) = [target for target in bench.TARGETS if target.text == text]
    verdict = target.judged(TIMES)
    assert (verdict["value"], verdict["met"]) == (pytest.approx(value), met)


def test_target_is_not_judged_without_its_contestants():
    records = {name: TIMES[name] for name in ("training step", "full kernel")}
    verdicts = {t.text: t.judged(records)["met"] for t in bench.TARGETS}
    assert verdicts["full kernel, training steps"] is True
    assert verdicts["torch.func / full kernel, memory"] is None


def test_verdicts_are_printed_and_targets_are_for_default_sizes():
    assert {target.size for target in bench.TARGETS} <= set(bench.SIZES)
    verdicts = [target.judged(TIMES) for target in bench.TARGETS]
    printed = bench.table(
        {"width": 500, "points": 256, "dtype": "float32", "parameters": 1, "contestants": {}}
        | {"targets": verdicts}
    )
    assert [line.split()[-1] for line in printed.splitlines()[2:4]] == ["met", "met"]
    assert printed.splitlines()[7].endswith("NOT MET")


# --- Environment


def test_environment_says_what_it_ran_on_and_names_no_path():
    found = environment(CPU)
    assert {"date", "commit", "cpu", "cores", "load_average", "threads"} <= set(found)
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    text = json.dumps(found)
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
    assert "/" not in json.dumps(torch_config()).replace("N/A", "")
    assert "BLAS_INFO" in torch_config()


# --- Overhead of the callbacks


def timed(wall: float, cpu: float = 1.0, own: float = 0.0, fraction: float | None = None):
    return overhead.Run(wall, cpu, own, 0.5, fraction)


def test_shares_are_taken_within_rounds():
    runs = {
        "plain": [timed(9.0, 8.0), timed(90.0, 16.0), timed(8.0, 9.0)],
        "both": [timed(10.0, 10.0, 0.5), timed(100.0, 20.0, 1.0), timed(10.0, 10.0, 2.0)],
    }
    found = overhead.figures(runs)["both"]
    assert found["share"] == pytest.approx(0.1)  # of 0.1, 0.1 and 0.2
    assert found["share_cpu"] == pytest.approx(0.2)  # of 0.2, 0.2 and 0.1
    assert found["share_least_cpu"] == pytest.approx(0.2)  # 8 and 10
    assert found["share_own"] == pytest.approx(0.05)  # of 0.05, 0.01 and 0.2
    assert (found["median_s"], found["once_s"]) == (10.0, 0.5)
    assert found["fraction_logged"] is None
    assert found["runs"][1]["wall_s"] == 100.0


def test_logged_fraction_is_the_median_of_those_that_have_one():
    runs = {"plain": [timed(1.0)] * 3, "monitor": [timed(1.0, fraction=f) for f in (3.0, 1, 2)]}
    found = overhead.figures(runs)
    assert found["monitor"]["fraction_logged"] == 2.0
    assert found["plain"]["share"] == 0.0
    lines = overhead.table(found, steps=500).splitlines()
    assert lines[1].split() == ["plain", "2.000", *4 * ["0.00%"], "-", "0.50s"]
    assert lines[2].split()[-2:] == ["200.00%", "0.50s"]


def test_contestants_take_turns_behind_a_run_that_does_not_count():
    calls: list[str] = []
    named = {name: lambda name=name: calls.append(name) or timed(1.0) for name in "abcd"}
    rounds = overhead.in_turns(named, 3)
    done = [sum(map(len, runs.values())) for runs in rounds]
    assert done == [4, 8, 12]
    first, turns = calls[0], [calls[i : i + 4] for i in range(1, 13, 4)]
    assert first == "d"
    assert [sorted(turn) for turn in turns] == [list("abcd")] * 3
    assert len(set(map(tuple, turns))) > 1
    walls = iter(range(1, 9))  # all rounds are kept
    *_, runs = overhead.in_turns({name: lambda: timed(next(walls)) for name in "ab"}, 3)
    assert sorted(run.wall_s for own in runs.values() for run in own) == [2, 3, 4, 5, 6, 7]


SHRUNK = {
    "model": {"width": 4, "depth": 1},
    "data": {"n_initial": 3, "n_boundary": 3, "n_residual": 4},
    "trainer": {"log_every_n_steps": 5},
}


@pytest.mark.parametrize("name", overhead.CALLBACKS)
def test_clock_runs_from_the_first_step_to_the_last_but_one(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """Ten steps of a clock that ticks once a step, and callbacks that take a quarter of a tick."""
    ticks = {"now": 0.0}
    wave = overhead.load_example("wave")
    step = wave.Wave.training_step

    def training_step(model: object, batch: object) -> torch.Tensor:
        if not isinstance(model.trainer, Trainer):  # of a step that is run again
            return step(model, batch)
        ticks["now"] += 1.0
        for callback in overhead.ntk_callbacks(model.trainer):
            callback.guard.seconds += 0.25
        return step(model, batch)

    monkeypatch.setattr(wave.Wave, "training_step", training_step)
    monkeypatch.setattr(overhead.time, "perf_counter", lambda: ticks["now"])
    run = overhead.train(wave, SHRUNK, overhead.CALLBACKS[name], steps=10)
    assert (run.wall_s, run.once_s) == (10.0, 2.0)
    expected = 2.5 * len(overhead.CALLBACKS[name]())
    assert run.own_s == pytest.approx(expected)
    assert (run.fraction is None) == (name in ("plain", "balancer"))


def test_overhead_is_kept_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shares = iter([1.0, 2.0, 4.0, 8.0] * 2)
    monkeypatch.setattr(overhead, "train", lambda *_: timed(next(shares)))
    path = tmp_path / "results" / "overhead.json"
    overhead.main(["--rounds", "1", "--json", str(path)])
    kept = json.loads(path.read_text())
    assert list(kept["contestants"]) == list(overhead.CALLBACKS)
    assert kept["rounds"] == 1
    assert kept["steps"] == overhead.EVERY
    assert kept["model"]["frequencies"] > 0
    assert kept["environment"]["torch"] == torch.__version__
    assert "by own clock" in capsys.readouterr().out


@pytest.mark.parametrize("steps", ["0", "-1000", "999", "1500"])
def test_steps_hold_the_usual_share_of_measurements(steps: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        overhead.main(["--steps", steps])
    assert f"{steps} is no positive multiple of 1000" in capsys.readouterr().err


# --- Components against separate terms


def test_components_take_the_memory_of_separate_terms(tmp_path: Path, capsys):
    target = tmp_path / "components.json"
    size = ["--components", "4", "--width", "32", "--points", "40", "--repeats", "1"]
    components.main([*size, "--json", str(target)])
    found = json.loads(target.read_text())["configurations"]
    assert [one["what"] for one in found] == ["K", "traces"]
    for one in found:
        assert list(one["times_of_base"]) == [components.BASE, *components.LAYOUTS]
        assert one["times_of_base"][components.BASE]["memory"] == 1.0
        assert all(times["memory"] <= components.BOUND for times in one["times_of_base"].values())
    assert capsys.readouterr().out.count("interleaved") == 2
