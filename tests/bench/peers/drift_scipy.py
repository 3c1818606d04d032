"""A loop of two-sample Kolmogorov-Smirnov tests, as tutorials write it. Argument: the data (npz)."""

import sys

import numpy as np
from scipy.stats import ks_2samp
from worker import median_ms, serve

data = np.load(sys.argv[1])
reference, current = data["reference"], data["current"]


def check() -> list[float]:
    return [float(ks_2samp(reference[:, j], current[:, j]).pvalue) for j in range(reference.shape[1])]


serve(lambda question: median_ms(check, question["seconds"]))
