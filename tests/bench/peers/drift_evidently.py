"""Evidently's data drift preset with its defaults. Argument: the data (npz)."""

import sys

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from worker import median_ms, serve

data = np.load(sys.argv[1])
names = [f"f{j}" for j in range(data["reference"].shape[1])]
definition = DataDefinition(numerical_columns=names)
reference = Dataset.from_pandas(pd.DataFrame(data["reference"], columns=names), definition)
current = Dataset.from_pandas(pd.DataFrame(data["current"], columns=names), definition)
report = Report([DataDriftPreset()])


def check() -> object:
    return report.run(current, reference).dict()


serve(lambda question: median_ms(check, question["seconds"]))
