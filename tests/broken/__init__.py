"""PINNs broken on purpose, healthy ones, and some that were stopped too early.

Each run has a planted cause, named as in `pinn_ntk.verdict`, and where there is one a cured twin
that differs in this mistake alone. ``python -m tests.broken`` trains them and says whether the
broken ones fail and the others work. The half "set" is for setting thresholds, "set" for judging
them: never look at it while setting.

The code is meant to look like that of users: terms squared where they are made, points in buffers,
batches or drawn anew, derivatives by `torch.autograd.grad`. Nothing here knows of the verdict.
"""

from __future__ import annotations

from tests.broken.cases import RUNS
from tests.broken.run import FAILS, WORKS, Run, Setup

__all__ = ["FAILS", "RUNS", "WORKS", "Run", "Setup"]
