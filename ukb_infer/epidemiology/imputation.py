"""An estimated exposure or covariate: multiple imputation and regression calibration.

Both learn from the labelled rows how the measurement depends on the estimate. Only multiple imputation may also use
the outcome; it must, or the slopes are pulled towards zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ukb_infer.epidemiology.estimators import Estimated, clustered, estimated
from ukb_infer.epidemiology.families import LINEAR, POISSON, Family, fit, solve
from ukb_infer.errors import RunError

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

#: Imputations. The fraction of missing information is large when few are labelled, so five would not do.
IMPUTATIONS = 50
#: Labelled rows per coefficient from which the slope of the measurement on the estimate may vary with the covariates.
_ROWS_PER_COEFFICIENT = 10
#: The residual variance of a row is kept within this factor of the mean one.
_VARIANCE_RANGE = 25.0


@dataclass(frozen=True)
class Exposure:
    """A model with one estimated variable on its right side.

    Attributes:
        estimate: (N,) of the variable; ``measured``: (n,) of the labelled rows.
        covariates: (N, r) other columns of the model, without intercept.
        outcome: (N,) measured for all.
        labelled: (N,) which rows are measured; ``people``: (N,) number of the participant.
        design_at: the (N, p) design for (N,) values of the variable.
    """

    estimate: Float64
    measured: Float64
    covariates: Float64
    outcome: Float64
    labelled: Bool
    people: Int64
    design_at: Callable[[Float64], Float64]

    def regressors(self, *, with_outcome: bool) -> tuple[Float64, int]:
        """(N, k) columns from which the measurement is predicted, standardized on the labelled rows.

        Args:
            with_outcome: whether the outcome is among them.

        Returns:
            The columns: intercept, variables, then products with the estimate; and the number of those before products.
        """
        columns = [self.estimate[:, None], self.covariates]
        if with_outcome:
            columns.append(self.outcome[:, None])
        main = np.column_stack(columns)
        few = main[self.labelled]
        spread = few.std(axis=0)
        main = (main - few.mean(axis=0))[:, spread > 0] / spread[spread > 0]
        products = main[:, :1] * main[:, 1:]
        if with_outcome and len(spread) == main.shape[1]:
            products = np.column_stack([products, main[:, -1:] * main[:, 1:-1]])  # for interactions in the model
        wide = np.column_stack([np.ones(len(main)), main, products])
        if len(few) < _ROWS_PER_COEFFICIENT * wide.shape[1]:
            wide = wide[:, : 1 + main.shape[1]]
        kept = independent(wide[self.labelled])
        return wide[:, kept], int((kept <= main.shape[1]).sum())


def independent(columns: Float64) -> NDArray[np.int64]:
    """Numbers of columns that are not linear combinations of earlier ones."""
    lengths = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    r = np.abs(np.diag(np.linalg.qr(columns / np.where(lengths > 0, lengths, 1.0), mode="r")))
    return np.flatnonzero(r > 1e-8)


def multiple_imputation(
    family: Family, data: Exposure, rng: np.random.Generator, imputations: int = IMPUTATIONS
) -> Estimated:
    """Impute the measurement of the unlabelled, fit the model to every completed table, and pool by Rubin's rules.

    The predictive distribution of the measurement given estimate, covariates and outcome is refitted on a bootstrap
    sample of the labelled participants for every imputation (which makes it proper); the slope on the estimate may vary
    with the covariates and so may the residual variance; residuals are drawn from the observed ones. Sources: Rubin,
    Multiple Imputation for Nonresponse in Surveys (1987); Cole, Chu, Greenland, Int. J. Epidemiol. 35 (2006) 1074;
    degrees of freedom by Barnard and Rubin, Biometrika 86 (1999) 948.

    Args:
        family: of the outcome, smooth.
        data: rows.
        rng: of the draws.
        imputations: number of completed tables.
    """
    imputer = _Imputer.of(data)
    estimates, variances = [], []
    start: Float64 | None = None
    values = data.estimate.copy()
    values[data.labelled] = data.measured
    for _ in range(imputations):
        values[~data.labelled] = imputer.draw(rng)
        found = fit(family, data.design_at(values), data.outcome, start)
        start = found.beta
        sums = clustered(found.parts, data.people)
        estimates.append(found.beta)
        variances.append(np.einsum("ij,ij->j", sums, sums))
    return _rubin(np.array(estimates), np.array(variances), len(data.outcome) - len(estimates[0]))


@dataclass(frozen=True)
class _Imputer:
    """Draws of the measurement for the unlabelled rows.

    Attributes:
        few: (n, k) regressors of the labelled; ``rest``: (N - n, k) of the others.
        plain: number of columns before the products, on which the residual variance depends.
        measured: (n,) of the labelled; ``people``: (n,) number of the participant.
    """

    few: Float64
    rest: Float64
    plain: int
    measured: Float64
    people: Int64

    @classmethod
    def of(cls, data: Exposure) -> _Imputer:
        wide, plain = data.regressors(with_outcome=True)
        people = np.unique(data.people[data.labelled], return_inverse=True)[1].astype(np.int64)
        return cls(wide[data.labelled], wide[~data.labelled], plain, data.measured, people)

    def draw(self, rng: np.random.Generator) -> Float64:
        """(N - n,) values, from a model refitted to a bootstrap sample of the labelled participants."""
        count = int(self.people.max()) + 1
        drawn = rng.multinomial(count, np.full(count, 1.0 / count))[self.people]
        weights = drawn / len(drawn)
        slopes = _least_squares(self.few, self.measured, weights)
        residual = self.measured - self.few @ slopes
        own, others = _variances(self.few[:, : self.plain], self.rest[:, : self.plain], residual**2, weights)
        pool = np.repeat(residual / np.sqrt(own), drawn)
        picked = pool[rng.integers(0, len(pool), len(self.rest))]
        degrees = np.sqrt(len(drawn) / (len(drawn) - self.few.shape[1]))
        return np.asarray(self.rest @ slopes + np.sqrt(others) * (degrees * picked), np.float64)


def _least_squares(columns: Float64, values: Float64, weights: Float64) -> Float64:
    root = np.sqrt(weights)
    return np.asarray(np.linalg.lstsq(columns * root[:, None], values * root)[0], np.float64)


def _variances(few: Float64, rest: Float64, squares: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """(n,) and (N - n,) residual variances, log-linear in the columns of ``few`` and ``rest``."""
    mean = float(np.average(squares, weights=weights)) or 1.0
    limit = np.log(_VARIANCE_RANGE)
    try:
        beta, _ = solve(POISSON, few, weights, few.T @ (weights * squares / mean))
    except RunError:  # residuals that no such model fits
        return np.full(len(few), mean), np.full(len(rest), mean)
    own, others = (mean * np.exp(np.clip(columns @ beta, -limit, limit)) for columns in (few, rest))
    return own, others


def _rubin(estimates: Float64, variances: Float64, complete_df: float) -> Estimated:
    """Pool (m, p) estimates and variances of completed tables."""
    m = len(estimates)
    within, between = variances.mean(axis=0), estimates.var(axis=0, ddof=1)
    total = within + (1.0 + 1.0 / m) * between
    share = np.clip((1.0 + 1.0 / m) * between / total, 1e-12, 1.0)
    old = (m - 1) / share**2
    observed = (complete_df + 1) / (complete_df + 3) * complete_df * (1.0 - share)
    return Estimated(estimates.mean(axis=0), np.sqrt(total), old * observed / np.maximum(old + observed, 1e-300))


def regression_calibration(family: Family, data: Exposure) -> Estimated:
    """Replace the estimate by the measurement expected given estimate and covariates, fitted on the labelled.

    Exact for linear models and nearly so for others if effects are small; wrong if the errors of the estimates depend
    on the outcome given the covariates. Standard errors count the calibration's own (stacked estimating equations).
    Source: Carroll, Ruppert, Stefanski, Crainiceanu, Measurement Error in Nonlinear Models (2006), chapter 4.

    Args:
        family: of the outcome, smooth.
        data: rows; the design must be linear in the estimated variable.
    """
    wide, _ = data.regressors(with_outcome=False)
    few = wide[data.labelled]
    calibration = fit(LINEAR, few, data.measured)
    values = wide @ calibration.beta
    design = data.design_at(values)
    found = fit(family, design, data.outcome)
    slope_of = data.design_at(values + 1.0) - design  # (N, p) derivative of the design
    eta = design @ found.beta
    mean = family.mean(eta)
    residual = data.outcome - mean
    weight = family.slope(mean) * (slope_of @ found.beta)
    change = (slope_of * residual[:, None] - design * weight[:, None]).T @ wide / len(wide)
    parts = found.parts.copy()
    parts[data.labelled] += calibration.parts @ (found.inverse @ change).T
    return estimated(found.beta, clustered(parts, data.people), float(len(few) - wide.shape[1]))
