"""Simulation extrapolation, for errors that are shown to be classical."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from ukb_infer.epidemiology.estimators import Estimated, clustered
from ukb_infer.epidemiology.families import LINEAR, Family, fit
from ukb_infer.epidemiology.imputation import Exposure

Float64 = NDArray[np.float64]

#: Multiples of the error variance that are added, and simulations for each.
_ADDED, _SIMULATIONS = (0.5, 1.0, 1.5, 2.0), 25
#: The slope of the estimate on the measurement may differ from 1 by this much.
_SLOPE_TOLERANCE = 0.1
_TEST_LEVEL = 0.05


def error_is_classical(data: Exposure) -> bool:
    """Whether estimate = measurement + error, the error independent of measurement, covariates and outcome.

    Among the labelled: the estimate regressed on measurement, covariates and outcome must have a slope on the
    measurement whose 95 % interval lies within 0.9 and 1.1, and no other slope (joint test, p > 0.05). Estimates of
    networks are pulled towards the mean and rarely pass.
    """
    few = data.labelled
    other = np.column_stack([data.covariates[few], data.outcome[few]])
    other = (other - other.mean(axis=0)) / np.where(other.std(axis=0) > 0, other.std(axis=0), 1.0)
    found = fit(LINEAR, np.column_stack([np.ones(few.sum()), data.measured, other]), data.estimate[few])
    sums = clustered(found.parts, np.unique(data.people[few], return_inverse=True)[1])
    variance = sums.T @ sums
    half = norm.ppf(0.975) * np.sqrt(variance[1, 1])
    wald = found.beta[2:] @ np.linalg.pinv(variance[2:, 2:]) @ found.beta[2:]
    fits = abs(found.beta[1] - 1.0) + half < _SLOPE_TOLERANCE
    return bool(fits and chi2.sf(wald, other.shape[1]) > _TEST_LEVEL)


def simex(family: Family, data: Exposure, rng: np.random.Generator) -> Estimated:
    """Add error in steps, and extrapolate the coefficients by a parabola to no error.

    Standard errors by the difference of the mean variance and the variance between simulations, extrapolated likewise.
    Sources: Cook and Stefanski, J. Am. Stat. Assoc. 89 (1994) 1314; Stefanski and Cook, ibid. 90 (1995) 1247.

    Args:
        family: of the outcome, smooth.
        data: rows.
        rng: of the added errors.
    """
    error = data.estimate[data.labelled] - data.measured
    sd = float(error.std(ddof=1))
    means, spreads = [], []
    start: Float64 | None = None
    for added in (0.0, *_ADDED):
        betas, variances = [], []
        for _ in range(_SIMULATIONS if added else 1):
            values = data.estimate + np.sqrt(added) * sd * rng.normal(size=len(data.estimate))
            found = fit(family, data.design_at(values), data.outcome, start)
            start = found.beta
            sums = clustered(found.parts, data.people)
            betas.append(found.beta)
            variances.append(np.einsum("ij,ij->j", sums, sums))
        means.append(np.mean(betas, axis=0))
        spreads.append(np.mean(variances, axis=0) - (np.var(betas, axis=0, ddof=1) if added else 0.0))
    levels = np.vander((0.0, *_ADDED), 3)
    beta, variance = (np.array([1.0, -1.0, 1.0]) @ np.linalg.lstsq(levels, np.array(v))[0] for v in (means, spreads))
    df = float(data.labelled.sum() - 1)
    return Estimated(beta, np.sqrt(np.maximum(variance, spreads[0])), np.full(len(beta), df))
