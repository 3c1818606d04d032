"""NannyML's univariate drift with its defaults (Jensen-Shannon), fitted on the reference. Argument: the data (npz)."""

import os
import sys

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"

import nannyml
import numpy as np
import pandas as pd
from worker import median_ms, serve

data = np.load(sys.argv[1])
names = [f"f{j}" for j in range(data["reference"].shape[1])]
reference = pd.DataFrame(data["reference"], columns=names)
current = pd.DataFrame(data["current"], columns=names)


def fit() -> nannyml.UnivariateDriftCalculator:
    return nannyml.UnivariateDriftCalculator(column_names=names, chunk_size=len(current)).fit(reference)


calculator = fit()
serve(
    lambda question: median_ms(
        fit if question.get("fit") else lambda: calculator.calculate(current), question["seconds"]
    )
)
