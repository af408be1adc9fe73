"""Means and paired tests of the seed study. scipy comes with the development dependencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

CONFIDENCE = 0.95
QUESTIONS = 8
"""Two kinds of inputs, two deltas, two quantities: the level is shared among them (Bonferroni)."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean, standard deviation (n - 1) and the mean's 95 % interval (Student's t)."""
    from scipy import stats

    count = len(values)
    mean, deviation = fmean(values), stdev(values)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return {"mean": mean, "deviation": deviation, "low": mean - reach, "high": mean + reach}


def comparison(relu: Sequence[float], linear: Sequence[float]) -> dict[str, Any]:
    """Compare two kinds seed by seed.

    Returns:
        the spread of both and of their difference (ReLU less linear), two-sided p-values of the
        paired t test and of Wilcoxon's signed-rank test, how often ReLU is smaller, and what
        follows at a level of 0.05 shared among all questions; both tests have to agree.
    """
    from scipy import stats

    differences = [a - b for a, b in zip(relu, linear, strict=True)]
    t_p = float(stats.ttest_rel(relu, linear).pvalue)
    wilcoxon_p = float(stats.wilcoxon(differences).pvalue)
    found = max(t_p, wilcoxon_p) < (1 - CONFIDENCE) / QUESTIONS
    smaller = "ReLU" if fmean(differences) < 0 else "linear"
    return {
        "relu": spread(relu),
        "linear": spread(linear),
        "difference": spread(differences),
        "relu_smaller": sum(d < 0 for d in differences),
        "t_p": t_p,
        "wilcoxon_p": wilcoxon_p,
        "finding": f"{smaller} is more robust" if found else "no difference shown",
    }
