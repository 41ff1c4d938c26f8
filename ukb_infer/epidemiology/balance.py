"""Are the labelled a random part of the cohort? What can be checked: how they differ from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

from ukb_infer.epidemiology.estimators import Data, clustered
from ukb_infer.epidemiology.families import LOGISTIC, fit
from ukb_infer.errors import RunError

if TYPE_CHECKING:
    from ukb_infer.epidemiology.cohort import Cohort

#: A difference of means that is worth a word, in standard deviations; and the level of the joint test.
NOTABLE_DIFFERENCE, TEST_LEVEL = 0.1, 0.01


@dataclass(frozen=True)
class Difference:
    """Means of a column among labelled and unlabelled; ``in_sds``: their difference in standard deviations."""

    column: str
    labelled: float
    unlabelled: float
    in_sds: float


@dataclass(frozen=True)
class Balance:
    """Labelled against unlabelled scans.

    Attributes:
        differences: one per column of the model, and of the estimates.
        p: of the joint test that labelling does not depend on them (Wald test of a logistic model, by participant).
    """

    differences: tuple[Difference, ...]
    p: float

    @property
    def cautions(self) -> tuple[str, ...]:
        """A sentence if the labelled look chosen."""
        notable = [d for d in self.differences if abs(d.in_sds) > NOTABLE_DIFFERENCE]
        if not self.p < TEST_LEVEL or not notable:
            return ()
        names = ", ".join(f"{d.column} ({d.in_sds:+.2f} sd)" for d in notable)
        return (
            f"The labelled are not a random part of the scans: they differ in {names} (p {self.p:.1g}). All estimators "
            "then need a model whose covariates explain who was labelled; add them, or label a random sample",
        )


def compare_labelled(terms: tuple[str, ...], data: Data, cohort: Cohort) -> Balance | None:
    """Compare the labelled with the others in the model's covariates and in the estimates.

    Args:
        terms: names of the columns of the design.
        data: matrices.
        cohort: rows.

    Returns:
        None if there are no others.
    """
    if data.labelled.all():
        return None
    estimates = {f"estimate of {n}": v for n, v in cohort.estimates.items()}
    columns = dict(zip(terms, data.design.T, strict=True)) | estimates
    columns = {n: v for n, v in columns.items() if np.ptp(v) > 0 and n not in cohort.estimates}
    few, rest = data.labelled, ~data.labelled
    found = tuple(
        Difference(n, float(v[few].mean()), float(v[rest].mean()), float((v[few].mean() - v[rest].mean()) / v.std()))
        for n, v in columns.items()
    )
    try:
        design = np.column_stack([np.ones(len(few)), *((v - v.mean()) / v.std() for v in columns.values())])
        model = fit(LOGISTIC, design, few.astype(np.float64))
        parts = clustered(model.parts, data.people)[:, 1:]
        wald = float(model.beta[1:] @ np.linalg.pinv(parts.T @ parts) @ model.beta[1:])
        return Balance(found, float(chi2.sf(wald, len(columns))))
    except RunError:  # a column separates the labelled from the others
        return Balance(found, 0.0 if any(abs(d.in_sds) > NOTABLE_DIFFERENCE for d in found) else float("nan"))
