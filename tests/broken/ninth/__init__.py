"""Runs of boundary value problems, oscillators, reactions, elasticity and inverse problems."""

from __future__ import annotations

from tests.broken.ninth.runs_basic import BASIC
from tests.broken.ninth.runs_other import OTHER
from tests.broken.ninth.runs_training import TRAINING

NINTH = [*BASIC, *TRAINING, *OTHER]
