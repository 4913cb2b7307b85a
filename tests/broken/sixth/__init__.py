"""Textbook equations, with the mistakes of people who learn to write PINNs."""

from __future__ import annotations

from tests.broken.run import Run
from tests.broken.sixth.elliptic import ELLIPTIC
from tests.broken.sixth.hyperbolic import HYPERBOLIC
from tests.broken.sixth.inverse import INVERSE
from tests.broken.sixth.lines import LINES
from tests.broken.sixth.parabolic import PARABOLIC
from tests.broken.sixth.times import TIMES

SIXTH: list[Run] = [*PARABOLIC, *HYPERBOLIC, *ELLIPTIC, *LINES, *TIMES, *INVERSE]
