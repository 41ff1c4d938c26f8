"""How far off a naive coefficient may be when nothing was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from ukb_infer.epidemiology.estimators import Estimated
from ukb_infer.epidemiology.families import fit

if TYPE_CHECKING:
    from ukb_infer.epidemiology.analysis import Case

Float64 = NDArray[np.float64]

#: Largest partial correlation between the error of an estimated outcome and a covariate that the range allows for.
LARGEST_CORRELATION = 0.1


def sensitivity_range(case: Case, found: Estimated, level: float) -> tuple[Float64, Float64] | None:
    """Lower and upper end, (p,) each, of a range around the naive interval.

    Estimated outcome: errors as large as the run's own sd says, whose partial correlation with each covariate is at
    most :data:`LARGEST_CORRELATION`, bias its coefficient by that correlation times sd of the error over sd of the
    covariate given the others. Estimated exposure: from the naive coefficient (errors of Berkson's kind: measurement =
    estimate + independent error) to that divided by the reliability (classical errors), for the terms of the estimated
    variable; for the other terms, whose bias may have either sign, nothing is given.

    Args:
        case: the model.
        found: the naive result.
        level: of the interval.

    Returns:
        None if the run has no sd.
    """
    sds = case.cohort.sds
    if not sds or not all(np.isfinite(sd).all() for sd in sds.values()) or case.place == "both":
        return None
    half = t.ppf(0.5 + level / 2, found.df) * found.se
    low, high = found.beta - half, found.beta + half
    rng = np.random.default_rng(0)
    moved = {n: v + sds[n] * rng.normal(size=len(v)) for n, v in case.cohort.estimates.items()}
    outcome, design = case.formula.matrices(case.cohort.phenotypes.assign(**moved))
    if case.place == "outcome":
        fitted = fit(case.family, case.design, case.outcome)
        eta = case.design @ fitted.beta
        error = case.family.residual(outcome, eta) - case.family.residual(case.outcome, eta)
        lengths = np.sqrt(np.mean((case.design @ fitted.inverse) ** 2, axis=0))
        bias = LARGEST_CORRELATION * error.std() * lengths
        return low - bias, high + bias
    changed = np.abs(design - case.design).max(axis=0) > 0
    rest = case.design[:, ~changed]
    for column in np.flatnonzero(changed):
        left = case.design[:, column] - rest @ np.linalg.lstsq(rest, case.design[:, column])[0]
        error = (design[:, column] - case.design[:, column]).var()
        reliability = max(1.0 - error / left.var(), 0.1)
        low[column], high[column] = (
            min(low[column], low[column] / reliability), max(high[column], high[column] / reliability)
        )  # fmt: skip
    low[~changed] = high[~changed] = np.nan
    return low, high
