"""Reference curves: where a value lies among people of the same sex, age and height.

A value is transformed (power), standardized by a mean and a log-variance that follow splines of the covariates, made
normal (sinh-arcsinh), and standardized once more, as shapes may change with the covariates. Sources: Cole and Green,
Stat. Med. 11 (1992) 1305 (the power); Smyth, J. R. Stat. Soc. B 51 (1989) 47 (mean and dispersion); Jones and Pewsey,
Biometrika 96 (2009) 761 (sinh-arcsinh).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

from ukb_infer.epidemiology.disclosure import clipped, robust_scale, step_of, to_step

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Fewest people of a sex, and of a level of a covariate, that get a curve.
FEWEST, FEWEST_OF_LEVEL = 200, 50
#: Quantiles at which the knots lie; splines are lines outside.
_KNOTS = (0.025, 0.25, 0.5, 0.75, 0.975)
#: A knot is the mean of so many neighbours, and the end of a covariate's range that of its lowest or highest: no one
#: person's value.
_NEIGHBOURS = 10
_POWERS = (1.0, 0.5, 0.0)
_ROUNDS, _TOLERANCE = 50, 1e-6
#: Residuals are made normal by a curve fitted to at most so many groups of neighbours.
_GROUPS = 2000
#: z-scores end here.
LARGEST_Z = 8.0


@dataclass(frozen=True)
class Term:
    """Columns of a covariate: a natural cubic spline, or one per level but the first.

    Attributes:
        name: of the covariate.
        knots: of the spline; two make a line. ``ends``: its range in the reference.
        levels: of a covariate of words.
    """

    name: str
    knots: tuple[float, ...] = ()
    ends: tuple[float, float] = (0.0, 0.0)
    levels: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, values: pd.Series) -> Term:
        """The term for these values (N,), rounded so that they show no one person."""
        if not pd.api.types.is_numeric_dtype(values):
            counts = values.value_counts()
            return cls(name, levels=tuple(sorted(map(str, counts[counts >= FEWEST_OF_LEVEL].index))))
        numbers = np.sort(np.asarray(values, np.float64))
        knots = sorted({_near(numbers, q) for q in _KNOTS})
        ends = _near(numbers, 0.0), _near(numbers, 1.0)
        few = len(np.unique(numbers)) < 10 or len(knots) < len(_KNOTS)
        return cls(name, tuple(knots) if not few else (ends if ends[0] < ends[1] else (ends[0], ends[0] + 1.0)), ends)

    def columns(self, values: pd.Series) -> Float64:
        """(N, k) columns; NaN where the value is missing or no level of the reference."""
        if self.levels:
            known = values.isin(self.levels).to_numpy()
            made = np.stack([np.asarray(values == level, np.float64) for level in self.levels[1:] or self.levels], 1)
            made[~known] = np.nan
            return made if len(self.levels) > 1 else made * 0.0
        numbers = np.asarray(values, np.float64)
        spline = CubicSpline(self.knots, np.eye(len(self.knots)), bc_type="natural")
        inside = np.clip(numbers, self.knots[0], self.knots[-1])
        beyond = np.nan_to_num(numbers - inside)[:, None] * spline(inside, 1)
        return np.asarray(spline(inside) + beyond, np.float64)[:, 1:]

    def outside(self, values: pd.Series) -> Bool:
        """(N,) values outside the range of the reference."""
        if self.levels:
            return np.zeros(len(values), bool)
        numbers = np.asarray(values, np.float64)
        return (numbers < self.ends[0]) | (numbers > self.ends[1])


def _near(ordered: Float64, level: float) -> float:
    """Mean of the values around a quantile of (N,) ascending values, to three digits."""
    start = min(max(round(level * len(ordered)) - _NEIGHBOURS // 2, 0), max(len(ordered) - _NEIGHBOURS, 0))
    return float(f"{ordered[start : start + _NEIGHBOURS].mean():.3g}")


def design(terms: Sequence[Term], table: pd.DataFrame) -> Float64:
    """(N, p) intercept, the terms' columns, and the product of the first two covariates (age and height).

    Args:
        terms: of the covariates.
        table: (N rows) with a column for each.
    """
    columns = [np.ones((len(table), 1)), *(term.columns(table[term.name]) for term in terms)]
    if len(terms) > 1 and not (terms[0].levels or terms[1].levels):
        scaled = [(np.asarray(table[t.name], np.float64) - np.mean(t.knots)) / np.ptp(t.knots) for t in terms[:2]]
        columns.append((scaled[0] * scaled[1])[:, None])
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class LocationScale:
    """A mean and a log-variance, linear in the columns (p) of a design.

    Attributes:
        mean: (p,) coefficients; ``log_variance``: likewise.
        covariance: (p, p) of the coefficients of the mean, or empty.
    """

    mean: tuple[float, ...]
    log_variance: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def fit(cls, columns: Float64, values: Float64) -> LocationScale:
        """Fit by maximum likelihood of the normal distribution; coefficients are rounded to hide any one person's part.

        Args:
            columns: (N, p).
            values: (N,).
        """
        inverse = np.asarray(np.linalg.pinv(columns.T @ columns), np.float64)
        free = len(values) / (len(values) - columns.shape[1])
        # the shortest of all that are constant: else columns that agree show the variance unrounded
        gamma = inverse @ columns.sum(axis=0) * np.log(np.var(values))
        for _ in range(_ROUNDS):
            weighted = columns * np.exp(-columns @ gamma)[:, None]
            covariance = np.asarray(np.linalg.pinv(weighted.T @ columns), np.float64)
            beta = covariance @ (weighted.T @ values)
            excess = free * (values - columns @ beta) ** 2 * np.exp(-columns @ gamma) - 1.0
            step = inverse @ (columns.T @ excess)
            moved = float(np.abs(columns @ step).max())
            gamma = gamma + step / max(1.0, moved)
            if moved < _TOLERANCE:
                break
        parts = weighted * (values - columns @ beta)[:, None] @ covariance, columns * excess[:, None] @ inverse
        rounded = tuple(tuple(float(f"{v:.2g}") for v in row) for row in covariance)
        return cls(_rounded(beta, covariance, parts[0]), _rounded(gamma, 2.0 * inverse, parts[1]), rounded)

    def apply(self, columns: Float64, values: Float64) -> Float64:
        """(N,) values standardized."""
        return np.asarray((values - columns @ self.mean) * np.exp(-0.5 * (columns @ self.log_variance)), np.float64)

    def error(self, columns: Float64) -> Float64:
        """(N,) standard error of the mean, in standard deviations."""
        variance = np.einsum("ij,jk,ik->i", columns, np.array(self.covariance), columns)
        return np.asarray(np.sqrt(np.maximum(variance * np.exp(-columns @ self.log_variance), 0.0)), np.float64)


def _rounded(values: Float64, covariance: Float64, parts: Float64) -> tuple[float, ...]:
    """Coefficients, one after the other rounded to a step that exceeds what any one person contributes to it.

    The later ones make up for the rounding of the earlier ones, as they would if these had been given.

    Args:
        values: (p,) coefficients.
        covariance: (p, p) of their errors.
        parts: (N, p) what each person contributes to them.
    """
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    root = np.linalg.cholesky(covariance / np.outer(spread, spread) + 1e-9 * np.eye(len(values)))
    largest = np.abs(np.linalg.solve(root, (parts / spread).T)).max(axis=1)
    made, moved = values.copy(), np.zeros(len(values))
    for k in np.flatnonzero(spread > 1e-12 * spread.max()):
        scale = spread[k] * root[k, k]
        step = step_of(max(0.1, 2.0 * largest[k]) * scale)
        made[k] = to_step(wanted := values[k] + spread[k] * (root[k, :k] @ moved[:k]), step)
        moved[k] = (made[k] - wanted) / scale
    return tuple(map(float, made))


@dataclass(frozen=True)
class Shape:
    """z = sinh(tail · asinh((x - centre) / width) - skew), which makes x normal."""

    centre: float = 0.0
    width: float = 1.0
    skew: float = 0.0
    tail: float = 1.0

    @classmethod
    def fit(cls, values: Float64) -> Shape:
        """Fit by maximum likelihood to (N,) standardized values; rounded as the coefficients are."""
        ordered = np.sort(values)
        means = np.array([part.mean() for part in np.array_split(ordered, min(_GROUPS, len(ordered)))])
        bounds = [(-3.0, 3.0), (-2.0, 2.0), (-2.0, 2.0), (-1.2, 1.2)]

        def loss(given: Float64) -> float:
            return float(np.mean(_losses(given, means)))

        found = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=bounds).x
        slopes = [(_losses(found + h, values) - _losses(found - h, values)) / 2e-4 for h in 1e-4 * np.eye(4)]
        scores = np.stack(slopes, axis=1)
        covariance = np.asarray(np.linalg.pinv(scores.T @ scores), np.float64)
        centre, width, skew, tail = _rounded(found, covariance, scores @ covariance)
        return cls(centre, float(np.exp(width)), skew, float(np.exp(tail)))

    def apply(self, values: Float64) -> Float64:
        """(N,) normal scores, before the last standardization."""
        inner = self.tail * np.arcsinh((values - self.centre) / self.width) - self.skew
        return np.asarray(np.sinh(np.clip(inner, -20.0, 20.0)), np.float64)


def _losses(given: Float64, values: Float64) -> Float64:
    """(N,) negative log-likelihoods of values under a shape.

    Args:
        given: (4,) centre, log of width, skew, log of tail.
        values: (N,) standardized.
    """
    u = (values - given[0]) * np.exp(-given[1])
    inner = np.exp(given[3]) * np.arcsinh(u) - given[2]
    slope = np.logaddexp(inner, -inner) - np.log(2.0) + given[3] - given[1] - 0.5 * np.log1p(u**2)
    return np.asarray(0.5 * np.sinh(inner) ** 2 - slope, np.float64)


@dataclass(frozen=True)
class Curve:
    """The curve of one target and sex: two standardizations and what makes normal between them."""

    first: LocationScale
    shape: Shape
    second: LocationScale

    @classmethod
    def fit(cls, columns: Float64, values: Float64) -> Curve:
        """Fit to transformed values.

        Args:
            columns: (N, p) of the design.
            values: (N,) transformed.
        """
        scale = robust_scale(values)
        values = clipped(values, scale) if scale > 0 else values
        first = LocationScale.fit(columns, values)
        left = first.apply(columns, values)
        shape = Shape.fit(left)
        return cls(first, shape, LocationScale.fit(columns, shape.apply(left)))

    def z(self, columns: Float64, values: Float64) -> Float64:
        """(N,) z-scores of transformed values."""
        found = self.second.apply(columns, self.shape.apply(self.first.apply(columns, values)))
        return np.clip(found, -LARGEST_Z, LARGEST_Z)

    def values(self, columns: Float64, z: float) -> Float64:
        """(N,) transformed values that have a z-score: the inverse."""
        scale = [np.exp(0.5 * (columns @ part.log_variance)) for part in (self.first, self.second)]
        inner = np.arcsinh(columns @ self.second.mean + scale[1] * z)
        left = self.shape.centre + self.shape.width * np.sinh((inner + self.shape.skew) / self.shape.tail)
        return np.asarray(columns @ self.first.mean + scale[0] * left, np.float64)


@dataclass(frozen=True)
class TargetCurves:
    """Curves of a target.

    Attributes:
        power: of the transformation; 0 is the logarithm.
        sexes: curve by sex, "0" women and "1" men.
    """

    power: float
    sexes: Mapping[str, Curve] = field(default_factory=dict)

    @classmethod
    def fit(cls, designs: Mapping[str, Float64], values: Mapping[str, Float64]) -> TargetCurves:
        """Fit to the values of each sex.

        Args:
            designs: (N, p) by sex, without missing values.
            values: (N,) by sex, NaN where missing.
        """
        kept = {sex: np.isfinite(v) for sex, v in values.items()}
        rows = {sex: (designs[sex][k], values[sex][k]) for sex, k in kept.items() if k.sum() >= FEWEST}
        power = best_power(list(rows.values()))
        return cls(power, {sex: Curve.fit(x, transformed(v, power)) for sex, (x, v) in rows.items() if np.ptp(v) > 0})


def transformed(values: Float64, power: float) -> Float64:
    """(N,) Box-Cox transform; a value that has none is -inf."""
    if power == 1.0:
        return values
    positive = np.where(values > 0, values, np.nan)
    made = np.log(positive) if power == 0.0 else positive**power
    return np.where(np.isnan(made) & ~np.isnan(values), -np.inf, made)


def best_power(rows: Sequence[tuple[Float64, Float64]]) -> float:
    """The power under which the residuals are most nearly normal (Box and Cox); 1 where values are not all positive.

    Args:
        rows: (N, p) columns and (N,) values of every sex.
    """
    if any((values <= 0).any() for _, values in rows):
        return 1.0

    def likelihood(power: float) -> float:
        total = 0.0
        for columns, values in rows:
            made = transformed(values, power)
            left = made - columns @ np.linalg.lstsq(columns, made)[0]
            total += (power - 1.0) * np.log(values).sum() - 0.5 * len(values) * np.log(
                np.mean(left**2) / (power or 1.0) ** 2
            )
        return float(total)

    return max(_POWERS, key=likelihood)
