"""Diagnostics by name, the tags that they announce, and the charts made of these."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from pinn_ntk import look
from pinn_ntk.callbacks.report import WEIGHT
from pinn_ntk.callbacks.trainer.loggers import layout
from pinn_ntk.diagnostics import Diagnostic, Tag
from pinn_ntk.diagnostics.registry import BY_NAME, chosen
from pinn_ntk.diagnostics.traces import Traces
from tests.looks import ask, grouped, rows, values

LIMIT = "distance_to_limit"


class Own(Diagnostic):
    name = "own_question"


def names(*given: Any, **options: Any) -> list[str]:
    return [diagnostic.name for diagnostic in chosen(*given, **options)]


def test_all_that_there_are_in_the_order_in_which_they_read():
    assert names() == list(BY_NAME)
    assert len(names()) == 13
    assert names(limit=False) == [name for name in BY_NAME if name != LIMIT]
    assert names([LIMIT], limit=False) == [LIMIT]
    assert names([Own(), "drift", "spectrum"]) == ["spectrum", "drift", "own_question"]
    assert names([]) == []


def test_objects_stay_the_same_and_names_make_new_ones():
    own, traces = Own(), Traces()
    assert chosen([own, traces]) == [traces, own]
    assert chosen(["traces"])[0] is not chosen(["traces"])[0]
    assert chosen(["drift"], save_start=False)[0].save_start is False
    assert (Own.title, Traces().title) == ("the own question", "the traces")


def test_every_tag_is_announced_and_every_chart_shows_some():
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    loss = (rows(3) @ theta).square().mean() + (rows(2, seed=1) @ theta).square().mean()
    optimizer = torch.optim.SGD([theta], lr=0.1)
    step = look(loss, optimizer, names=["pde", "bc"], optimizer=optimizer)
    panel, every = ask(step), [*chosen(), type("W", (Diagnostic,), {"tags": (WEIGHT,)})()]
    panel.read(step)
    found = {f"a+b/{tag}" for tag in [*values(panel), *values(ask(grouped(GROUPS)))]}
    tags = [tag for diagnostic in every for tag in diagnostic.tags]
    late = {"a+b/predicted_decrease_ratio", "a+b/distance_to_limit", "a+b/weight/pde"}
    late |= {"a+b/trace_error/pde"}  # of rows that are drawn
    for tag in found | late:
        assert any(re.fullmatch(known.regex("a+b").removesuffix("$"), tag) for known in tags), tag
    for known in tags:
        assert any(re.fullmatch(known.regex("a+b"), tag) for tag in found | late), known
    charts = layout(tags, "a+b")["A+B"]
    assert set(charts) == {
        *("trace of each block", "loss weights", "weights in the loss", "learning rate"),
        "interference",
    }
    assert charts["trace of each block"] == ["Multiline", [r"a\+b/trace/.*"]]
    assert charts["learning rate"] == ["Multiline", [r"a\+b/max_stable_lr$", r"a\+b/lr$"]]


GROUPS = {"theta": "network", "c": "inverse"}


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [("interference/<a>/<b>", "ntk/interference/.*"), ("trace_<g>/<t>", "ntk/trace_.*")],
)
def test_what_stands_in_brackets_varies(pattern: str, regex: str):
    assert Tag(pattern, "a number").regex("ntk") == regex
