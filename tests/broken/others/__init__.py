"""Broken and healthy runs in other hands' styles."""

from __future__ import annotations

from tests.broken.others.runs_of_fields import FIELDS
from tests.broken.others.runs_of_fits import FITS
from tests.broken.others.runs_of_motions import MOTIONS
from tests.broken.others.runs_of_rods import RODS
from tests.broken.run import Run

UNCONFIRMED = {
    "others-rod-dropout",
    "others-chirp",
    "others-beam-millimetres",
    "others-beam-unclamped",
    "others-clamped-beam",
    "others-column-flux",
    "others-column",
    "others-cooling-frozen",
    "others-cooling-years",
    "others-cooling-probes",
    "others-cooling-clipped",
    "others-pendulum-long",
    "others-pendulum",
    "others-epidemic-persons",
    "others-epidemic-imbalance",
    "others-epidemic-narrow",
    "others-epidemic-early",
    "others-epidemic",
    "others-delay",
    "others-delay-whole",
    "others-delay-broadcast",
    "others-memory",
    "others-memory-large",
    "others-disc",
    "others-disc-centre",
    "others-cavity-descent",
    "others-cavity-few",
    "others-cavity-waves",
    "others-cavity",
    "others-channel",
    "others-heat",
    "others-heat-early",
    "others-heat-hot-weights",
    "others-heat-weights",
    "others-heat-forgotten",
    "others-heat-rmsprop",
    "others-heat-kelvin",
    "others-chord",
    "others-chord-not-plucked",
    "others-chord-no-rest",
    "others-transport-no-grad",
    "others-transport-half",
    "others-transport-fast",
    "others-reaction",
    "others-front",
}
OTHERS: list[Run] = [
    run for run in [*FITS, *RODS, *MOTIONS, *FIELDS] if run.name not in UNCONFIRMED
]
