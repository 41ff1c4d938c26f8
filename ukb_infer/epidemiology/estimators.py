"""Estimators of a model in which a variable is measured for some participants and estimated for all.

Notation: ``labelled`` marks the n rows with a measurement among N. Each estimator returns coefficients and the
contributions of all rows to their error; one function turns contributions into a variance, clustered by participant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ukb_infer.epidemiology.families import Family, Fit, fit, leverage_factor, small_sample, solve

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """The rows of an analysis.

    Attributes:
        design: (N, p) with estimates where the model has them; ``outcome``: (N,) likewise.
        true_design: (n, p) with measurements, of the labelled rows; ``true_outcome``: (n,) likewise.
        labelled: (N,) which rows have measurements of everything estimated.
        people: (N,) number of the participant, for clustering.
    """

    design: Float64
    outcome: Float64
    true_design: Float64
    true_outcome: Float64
    labelled: Bool
    people: Int64

    @property
    def counts(self) -> tuple[int, int]:
        """(n, N) labelled rows and all rows."""
        return len(self.true_outcome), len(self.outcome)


@dataclass(frozen=True)
class Estimated:
    """Coefficients with their uncertainty.

    Attributes:
        beta: (p,) coefficients.
        se: (p,) standard errors.
        df: (p,) degrees of freedom of the t distribution of the interval.
        support: (p,) degrees of freedom of the variance itself, small if few participants make it up; None where that
            was not asked.
        largest: (p,) largest contribution of one participant to the error of ``beta``; None if unknown.
    """

    beta: Float64
    se: Float64
    df: Float64
    support: Float64 | None = None
    largest: Float64 | None = None


def clustered(parts: Float64, people: Int64) -> Float64:
    """(participants, p) sums of the contributions of one participant's rows.

    Args:
        parts: (N, p).
        people: (N,) number of the participant, from 0.
    """
    count = int(people.max()) + 1
    if count == len(people):
        return parts
    return np.column_stack([np.bincount(people, column, count) for column in parts.T])


def estimated(beta: Float64, sums: Float64, df: float) -> Estimated:
    """Coefficients with what their contributions say.

    Args:
        beta: (p,) coefficients.
        sums: (participants, p) contributions, summed by participant.
        df: degrees of freedom.
    """
    se = np.sqrt(np.einsum("ij,ij->j", sums, sums))
    return Estimated(beta, se, np.full(len(beta), max(df, 1.0)), largest=np.abs(sums).max(axis=0))


def labels_only(family: Family, data: Data) -> Estimated:
    """The model fitted to the measurements: always valid, and wide.

    Args:
        family: of the outcome.
        data: rows.
    """
    found = fit(family, data.true_design, data.true_outcome)
    who = np.unique(data.people[data.labelled], return_inverse=True)[1].astype(np.int64)
    return estimated(found.beta, clustered(found.parts, who), _df(data))


def naive(family: Family, data: Data) -> Estimated:
    """The model fitted to the estimates as if they were measurements: narrow, and wrong wherever their errors matter.

    Args:
        family: of the outcome.
        data: rows.
    """
    found = fit(family, data.design, data.outcome)
    sums = clustered(found.parts, data.people)
    return estimated(found.beta, sums, float(len(sums) - data.design.shape[1]))


def chen_chen(family: Family, data: Data) -> Estimated:
    """Labels-only coefficients, corrected by how the naive ones of the labelled differ from those of everyone.

    ``beta - W (gamma_labelled - gamma_all)`` with the W that minimizes the variance: consistent whatever the errors
    of the estimates, and in large samples never less precise than the labels alone. The estimates may stand anywhere in
    the model. Source: Chen and Chen, A unified approach to regression analysis under double-sampling designs, J. R.
    Stat. Soc. B 62 (2000) 449.

    Args:
        family: of the outcome.
        data: rows.
    """
    own = fit(family, data.true_design, data.true_outcome)
    everyone = fit(family, data.design, data.outcome)
    few = fit(family, data.design[data.labelled], data.outcome[data.labelled], everyone.beta)
    moved = -everyone.parts
    moved[data.labelled] += few.parts
    parts = np.zeros((len(data.labelled), len(own.beta)))
    parts[data.labelled] = own.parts
    sums, shifts = clustered(parts, data.people), clustered(moved, data.people)
    weights, leverage = _weights(sums, shifts)
    beta = own.beta - weights @ (few.beta - everyone.beta)
    left = (sums - shifts @ weights.T) * leverage_factor(leverage)[:, None]
    return _corrected(beta, left, data, _df(data))


def _corrected(beta: Float64, sums: Float64, data: Data, df: float) -> Estimated:
    """Coefficients of an estimator that corrects estimates by the labelled whose measurement they miss.

    If these are few, the variance is itself uncertain, and the t distribution has its degrees of freedom: those of a
    sum of squares of normal contributions, each of a size of its own (Satterthwaite). The fourth power of such a one is
    three times its squared variance. Source: Bell and McCaffrey, Survey Methodology 28 (2002) 169.

    Args:
        beta: (p,) coefficients.
        sums: (participants, p) contributions, summed by participant.
        data: rows.
        df: degrees of freedom if all labelled tell the same.
    """
    found = estimated(beta, sums, df)
    support = 3.0 * found.se**4 / np.maximum(np.einsum("ij,ij->j", sums**2, sums**2), 1e-300)
    return replace(found, support=support, df=np.maximum(np.minimum(found.df, support), 1.0))


def _weights(parts: Float64, moved: Float64) -> tuple[Float64, Float64]:
    """(p, q) coefficients of the regression of contributions on contributions that have mean zero; (N,) leverages."""
    left, values, right = np.linalg.svd(moved / _scale(moved), full_matrices=False)
    keep = values > 1e-8 * max(values.max(), 1e-300)
    left, values, right = left[:, keep], values[keep], right[keep]
    weights = (right.T / values) @ (left.T @ parts) / _scale(moved)[:, None]
    return weights.T, np.einsum("ij,ij->i", left, left)


def _scale(columns: Float64) -> Float64:
    """(q,) lengths of the columns, 1 for those that are zero."""
    scale = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    return np.where(scale > 0, scale, 1.0)


def ppi(family: Family, data: Data) -> Estimated:
    """PPI++ for an estimated outcome, its weight tuned for every coefficient.

    Source: Angelopoulos, Duchi, Zrnic, PPI++: efficient prediction-powered inference, arXiv 2311.01453.

    Args:
        family: of the outcome.
        data: rows; ``design`` has no estimates.
    """
    n, total = data.counts
    rest = ~data.labelled
    own = fit(family, data.true_design, data.true_outcome)
    x, x_rest, f, f_rest = (
        data.design[data.labelled],
        data.design[rest],
        data.outcome[data.labelled],
        data.outcome[rest],
    )
    scores = [_score(family, *pair, own.beta) for pair in ((x, f), (x_rest, f_rest))]
    shift = np.zeros((total, x.shape[1]))
    shift[data.labelled] = (scores[0] - scores[0].mean(axis=0)) / n @ own.inverse
    shift[rest] = -(scores[1] - scores[1].mean(axis=0)) / len(f_rest) @ own.inverse
    parts = np.zeros_like(shift)
    parts[data.labelled] = own.parts
    sums, moved = clustered(parts, data.people), clustered(shift, data.people)
    lambdas = np.einsum("ij,ij->j", sums, moved) / np.maximum(np.einsum("ij,ij->j", moved, moved), 1e-300)
    lambdas = np.clip(lambdas, 0.0, 1.0)
    if not family.is_smooth:
        gap = (scores[0].mean(axis=0) - scores[1].mean(axis=0)) @ own.inverse
        return _corrected(own.beta - lambdas * gap, sums - moved * lambdas, data, _df(data) - 1.0)
    columns = [_ppi_column(family, data, own, weight) for weight in lambdas]
    beta = np.array([b[k] for k, (b, _) in enumerate(columns)])
    parts = np.column_stack([p[:, k] for k, (_, p) in enumerate(columns)])
    return _corrected(beta, clustered(parts, data.people), data, _df(data) - 1.0)


def _score(family: Family, design: Float64, outcome: Float64, beta: Float64) -> Float64:
    """(N, p) score of every row."""
    return design * family.residual(outcome, design @ beta)[:, None]


def _ppi_column(family: Family, data: Data, own: Fit, weight: float) -> tuple[Float64, Float64]:
    """Coefficients and contributions for one weight of the estimates."""
    n, total = data.counts
    few, rest = data.labelled, ~data.labelled
    row = np.where(few, (1.0 - weight) / n, weight / max(total - n, 1))
    x, f = data.design[few], data.outcome[few]
    aim = x.T @ (data.true_outcome - weight * f) / n + weight * data.design[rest].T @ data.outcome[rest] / (total - n)
    beta, hessian = solve(family, data.design, row, aim, own.beta)
    inverse = np.linalg.inv(hessian)
    eta = x @ beta
    residual = family.residual(data.true_outcome, eta) - weight * family.residual(f, eta)
    residual = residual * small_sample(x, family.slope(family.mean(eta)), own.inverse)
    score = np.zeros_like(data.design)
    score[few] = (x * residual[:, None] - (x * residual[:, None]).mean(axis=0)) / n
    others = _score(family, data.design[rest], data.outcome[rest], beta)
    score[rest] = weight * (others - others.mean(axis=0)) / (total - n)
    return beta, score @ inverse


def _df(data: Data) -> float:
    """Degrees of freedom: labelled participants less coefficients."""
    return float(len(np.unique(data.people[data.labelled])) - data.design.shape[1])
