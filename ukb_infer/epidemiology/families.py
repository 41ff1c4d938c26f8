"""The regression families, and solving their estimating equations.

Every family solves ``sum w x (y - mean(x b)) = 0``: the score of a generalized linear model with canonical link, or
that of quantile regression. One solver and one influence function therefore serve all estimators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ukb_infer.errors import RunError

Float64 = NDArray[np.float64]
FamilyName = Literal["linear", "logistic", "poisson", "quantile"]

#: Newton steps, and the relative change at which they end.
_STEPS, _TOLERANCE = 50, 1e-9
#: A fitted log-odds or log-rate beyond this means that the estimate is infinite.
_LARGEST_ETA = 30.0
_WORST_CONDITION = 1e12
_INFINITE = (
    "the model has no finite coefficients: perhaps a covariate separates the outcome's values; remove it, or join rare "
    "categories"
)
_COLLINEAR = (
    "the columns of the model are linearly dependent, or too few rows are labelled for them; remove a covariate, or "
    "join rare categories"
)


@dataclass(frozen=True)
class Family:
    """A regression family.

    Attributes:
        name: as in ``--family``.
        scale: what a coefficient is, for tables.
        quantile: of quantile regression, else NaN.
    """

    name: FamilyName
    scale: str
    quantile: float = float("nan")

    @property
    def is_smooth(self) -> bool:
        """Whether the score is differentiable."""
        return self.name != "quantile"

    def mean(self, eta: Float64) -> Float64:
        """(N,) fitted outcome of a linear predictor."""
        if self.name == "logistic":
            return np.asarray(expit(eta), np.float64)
        return np.exp(np.minimum(eta, _LARGEST_ETA)) if self.name == "poisson" else eta

    def slope(self, mean: Float64) -> Float64:
        """(N,) derivative of the mean with respect to the linear predictor."""
        if self.name == "logistic":
            return mean * (1.0 - mean)
        return mean if self.name == "poisson" else np.ones_like(mean)

    def residual(self, outcome: Float64, eta: Float64) -> Float64:
        """(N,) factor of x in the score.

        Args:
            outcome: (N,) values.
            eta: (N,) linear predictor.
        """
        if self.name == "quantile":
            return np.where(outcome < eta, self.quantile - 1.0, self.quantile)
        return outcome - self.mean(eta)

    def start(self, design: Float64, weights: Float64, total: Float64) -> Float64:
        """(p,) coefficients to begin with: the intercept that gives the mean outcome, where that helps.

        Args:
            design: (N, p).
            weights: (N,) of the rows.
            total: (p,) weighted sum of x times the outcome.
        """
        if self.name == "linear":
            return np.zeros(design.shape[1])
        some = design[: 50 * design.shape[1]]
        ones = np.asarray(np.linalg.lstsq(some, np.ones(len(some)))[0], np.float64)
        if not np.allclose(design @ ones, 1.0):
            return np.zeros(design.shape[1])
        mean = float(ones @ total / weights.sum())
        if self.name == "logistic":
            mean = min(max(mean, 1e-4), 1.0 - 1e-4)
            return ones * float(np.log(mean / (1.0 - mean)))
        return ones * float(np.log(max(mean, 1e-8)))


LINEAR = Family("linear", "difference in the mean")
LOGISTIC = Family("logistic", "log odds ratio")
POISSON = Family("poisson", "log rate ratio")
FAMILIES: Mapping[str, Family] = {str(f.name): f for f in (LINEAR, LOGISTIC, POISSON)} | {
    "quantile": Family("quantile", "difference in the quantile", 0.5)
}


def solve(
    family: Family, design: Float64, weights: Float64, total: Float64, start: Float64 | None = None
) -> tuple[Float64, Float64]:
    """Coefficients with ``sum w x mean(x b) = total``, by Newton's method.

    Args:
        family: a smooth one.
        design: (N, p).
        weights: (N,) not negative.
        total: (p,) weighted sum of x times the outcome.
        start: (p,) coefficients to begin with.

    Returns:
        (p,) coefficients, and the (p, p) derivative ``sum w mean' x x'``.

    Raises:
        RunError: collinear columns, or coefficients that are infinite.
    """
    beta = family.start(design, weights, total) if start is None else start
    for number in range(_STEPS):
        mean = family.mean(design @ beta)
        hessian = design.T @ (design * (weights * family.slope(mean))[:, None])
        scale = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
        if not np.linalg.cond(hessian / np.outer(scale, scale)) < _WORST_CONDITION:
            raise RunError(_INFINITE if number else _COLLINEAR)
        step = np.linalg.solve(hessian, total - design.T @ (weights * mean))
        beta = beta + step
        if family.name == "linear" or np.abs(step).max() <= _TOLERANCE * (1.0 + np.abs(beta).max()):
            return beta, hessian
    raise RunError(_INFINITE)


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        beta: (p,) coefficients.
        inverse: (p, p) inverse of the mean derivative of the score.
        parts: (N, p) contribution of every row to the error of ``beta``, with sum zero; their residuals are divided by
            ``sqrt(1 - leverage)``, which makes the variance right in small samples (HC2).
    """

    beta: Float64
    inverse: Float64
    parts: Float64


def fit(family: Family, design: Float64, outcome: Float64, start: Float64 | None = None) -> Fit:
    """Fit a model to all rows with equal weight.

    Args:
        family: of the outcome.
        design: (N, p).
        outcome: (N,).
        start: (p,) coefficients to begin with.

    Raises:
        RunError: it has no unique finite solution.
    """
    count = len(outcome)
    weights = np.full(count, 1.0 / count)
    if not family.is_smooth:
        return _fit_quantile(family, design, outcome)
    beta, hessian = solve(family, design, weights, design.T @ outcome / count, start)
    inverse = np.asarray(np.linalg.inv(hessian), np.float64)
    eta = design @ beta
    residual = family.residual(outcome, eta) * small_sample(design, family.slope(family.mean(eta)), inverse)
    return Fit(beta, inverse, (design * (residual / count)[:, None]) @ inverse)


def small_sample(design: Float64, slope: Float64, inverse: Float64) -> Float64:
    """(N,) factors of residuals that undo the shrinking of a row's residual by its own leverage.

    Args:
        design: (N, p).
        slope: (N,) derivative of the mean.
        inverse: (p, p) inverse of the mean derivative of the score.
    """
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design, optimize=True) * slope / len(design)
    return leverage_factor(leverage)


def leverage_factor(leverage: Float64) -> Float64:
    """(N,) factors by which residuals of rows with these leverages are too small on average (HC2)."""
    return 1.0 / np.sqrt(np.maximum(1.0 - leverage, 0.05))


def _fit_quantile(family: Family, design: Float64, outcome: Float64) -> Fit:
    """Quantile regression by statsmodels; its derivative by Powell's kernel with the Hall-Sheather bandwidth."""
    import warnings

    from scipy.stats import norm

    try:
        from statsmodels.regression.quantile_regression import QuantReg, hall_sheather
    except ImportError as error:
        raise RunError('quantile regression needs statsmodels: pip install "ukb-infer[epidemiology]"') from error

    count = len(outcome)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its iterations; the score is checked below
        beta = np.asarray(QuantReg(outcome, design).fit(q=family.quantile, max_iter=5000).params, np.float64)
    residual = outcome - design @ beta
    spread = min(float(residual.std()), float(np.subtract(*np.percentile(residual, [75, 25]))) / 1.34)
    low, high = (norm.ppf(np.clip(family.quantile + s * hall_sheather(count, family.quantile), 1e-3, 1 - 1e-3))
                 for s in (-1, 1))  # fmt: skip
    width = spread * (high - low) / 2.0
    if not width > 0:
        raise RunError("the outcome has too few different values for quantile regression; use another family")
    hessian = design.T @ (design * (norm.pdf(residual / width) / width)[:, None]) / count
    inverse = np.linalg.inv(hessian)
    score = design * family.residual(outcome, design @ beta)[:, None]
    return Fit(beta, inverse, ((score - score.mean(axis=0)) / count) @ inverse)
