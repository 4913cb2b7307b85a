"""Shares of network and inverse parameters in the trace of each term."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pinn_ntk.analysis.wording import number
from pinn_ntk.diagnostics.base import Diagnostic, Reading, Readings, Tag, finite
from pinn_ntk.looks.look import Look


class Groups(Diagnostic):
    """Traces of the columns of each group, where residuals depend on more than one."""

    name = "groups"
    title = "the groups of parameters"
    tags = (
        Tag(
            "trace_<group>/<term>",
            "share of a group of parameters in it",
            "(r / theta)^2",
            advice=(
                "Who does the learning: a single coefficient may carry most of a trace. "
                "loss_weights enter the loss but no residual measured; inverse is what the "
                "LightningModule (or a ParameterDict or ParameterList) owns itself, or nobody; "
                "network is the rest."
            ),
        ),
    )

    def read(self, look: Look) -> Reading:
        """Group -> term -> trace of J_g J_g^T, of all rows."""
        traces: dict[str, dict[str, float]] = {group: {} for group in self._used(look)}
        for term, of_term in look.shares.items():
            for name, share in of_term.items():
                group = look.groups.get(name, "")
                if group in traces:
                    traces[group][term] = traces[group].get(term, 0.0) + share
        tagged = {f"trace_{g}/{t}": x for g, of_term in traces.items() for t, x in of_term.items()}
        facts = {"groups": traces, "traces": dict(look.traces)}
        return Reading(look.step, finite(tagged), facts=facts)

    def sentences(self, readings: Readings) -> Iterator[str]:
        facts = readings[self.name].facts
        listed = []
        for term, trace in facts["traces"].items():
            shares = {g: traces.get(term, 0.0) for g, traces in facts["groups"].items()}
            if shares and 0 < trace < math.inf:
                parts = ", ".join(f"{g} {number(share / trace)}" for g, share in shares.items())
                listed.append(f"{term} {parts}")
        if listed:
            yield f"Shares of the groups of parameters in the trace: {'; '.join(listed)}."

    def _used(self, look: Look) -> list[str]:
        """Groups that residuals depend on, in the order of the parameters; none if one only."""
        if not look.shares:
            return []
        kernel = look.kernel
        names = {name for term in kernel.terms for name in kernel.jacobian(term).factors}
        used = {look.groups[name] for name in names if name in look.groups}
        return [group for group in dict.fromkeys(look.groups.values()) if group in used]
