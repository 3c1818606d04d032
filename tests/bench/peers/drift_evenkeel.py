"""What monitor computes when a window closes: the window's vectors counted into the profile's bins, then the
usual statistic with its significance.
Argument: the data (npz). Runs in Evenkeel's own environment."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import numpy as np
from worker import median_ms, serve

from evenkeel.libs.drift import chosen_statistics
from evenkeel.libs.sketches.profile import build_profile
from evenkeel.services.monitor.domain.drift import Reference, feature_shifts, shifted
from evenkeel.services.monitor.domain.slots import OpenSlot

data = np.load(sys.argv[1])
names = [f"f{j}" for j in range(data["reference"].shape[1])]
profile = build_profile(names, data["reference"])
reference, binning = Reference.of(profile), profile.binning
STATISTICS = chosen_statistics(None)
values = data["current"].tolist()


def check() -> object:
    """As the vectors come from the topic, as lists, through the slot that monitor keeps."""
    slot = OpenSlot(0, epoch=1)
    for row in values:
        slot.add_vector(row)
    return shifted(feature_shifts(reference, [slot.close(binning)], STATISTICS))


def fit() -> object:
    return build_profile(names, data["reference"])


serve(lambda question: median_ms(fit if question.get("fit") else check, question["seconds"]))
