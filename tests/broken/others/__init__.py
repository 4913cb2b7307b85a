"""Broken and healthy runs in other hands' styles."""

from __future__ import annotations

from tests.broken.others.runs_of_fields import FIELDS
from tests.broken.others.runs_of_fits import FITS
from tests.broken.others.runs_of_motions import MOTIONS
from tests.broken.others.runs_of_rods import RODS
from tests.broken.run import Run

OTHERS: list[Run] = [*FITS, *RODS, *MOTIONS, *FIELDS]
