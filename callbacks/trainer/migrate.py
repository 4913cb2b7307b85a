"""States that earlier versions of the callbacks wrote, in the form of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSION = 2
"""Of the states written today; those before had none."""


def migrate(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of a monitor or balancer of any version, as today's load it."""
    version = state.get("version", 1)
    if version > VERSION:
        raise ValueError(
            f"this checkpoint holds a state of version {version}, and this pinn_ntk reads up to "
            f"{VERSION}; it was written by a newer pinn_ntk. Upgrade, or remove the callback."
        )
    if version == VERSION:
        return dict(state)
    return _monitor_before_2(state) if "book" in state else {**state, "version": VERSION}


def _monitor_before_2(state: Mapping[str, Any]) -> dict[str, Any]:
    """One part a module then, one a diagnostic now."""
    book, waiting = state["book"], dict(state.get("outlook", {}))
    offset = book["count"]["offset"]
    if waiting:
        waiting["total_step"] = waiting["step"] + offset
    late = {}
    if judged := book.get("judged"):  # the last forecast whose outcome was known
        step, ratio, predicted = judged
        facts = {"step": step, "ratio": ratio, "predicted": predicted}
        values = {"predicted_decrease_ratio": ratio}
        late["predicted_decrease"] = {"step": step, "values": values, "facts": facts}
    states = {
        "spectrum": {"spectra": book["spectra"]},
        "interference": {"panels": book.get("interference", [])},
        "drift": state["drift"],
        "distance_to_limit": state.get("limit", {}),
        "predicted_decrease": waiting,
    }
    return {
        "version": VERSION,
        "history": book["history"],
        "count": book["count"],
        "schedule": state["schedule"],
        "names": state["names"],
        "probe": state["probe"],
        "diagnostics": {"states": states, "late": late},
    }
