"""The calibration of one target: its record, how it is fitted, and its half widths."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UsageError
from ukb_infer.modules.checks import Curve, Positive, Prose, Sets, Widths, expected, from_json
from ukb_infer.regression import (
    conformal_table,
    gaussian_quantile,
    variance_factor_closed_form,
    variance_factor_coverage,
)
from ukb_infer.regression.probability import apply_curve, fit_probability, fit_sets

Float64 = NDArray[np.float64]
Method = Literal["none", "variance-factor", "conformal"]
#: The conformal method also scales the variance, by coverage, so that the sd in the tables is calibrated as well.
METHODS = ("conformal", "coverage", "closed-form")


@from_json
@dataclass(frozen=True)
class Calibration:
    """Calibration of one target.

    Attributes:
        method: ``none``, ``variance-factor`` or ``conformal``.
        factor: multiplies the variance (1 for ``none``).
        half_widths: for ``conformal``: level -> half width in calibrated standard deviations; empty if there were
            too few labels for any level.
        fitted_on: description of the data it was fitted on.
        curve: of a binary target: (mean, probability) knots from the regressed mean to the probability; empty for none.
        sets: of a binary target: (level, lowest probability of class 0, of class 1) of the prediction sets.
    """

    method: Annotated[Method, expected("none or variance-factor or conformal")]
    factor: Positive = 1.0
    half_widths: Widths = ()
    fitted_on: Prose = ""
    curve: Curve = ()
    sets: Sets = ()

    @property
    def summary(self) -> str:
        """In a few words."""
        if self.curve:
            return "probability"
        if self.method == "none" or (self.method == "conformal" and not self.half_widths):
            return "none"
        return f"{self.method} x {self.factor:.3f}"

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; keys unknown to early versions are omitted if empty."""
        return {k: v for k, v in asdict(self).items() if v or k not in ("curve", "sets")}


def half_width_of(calibration: Calibration, level: float) -> float | None:
    """Half width of the central interval.

    Args:
        calibration: of the target.
        level: in (0, 1).

    Returns:
        In calibrated standard deviations; None if the calibration had too few labels for that level.
    """
    if calibration.method != "conformal":
        return gaussian_quantile(level)
    if not calibration.half_widths:
        return None
    levels, widths = zip(*calibration.half_widths, strict=True)
    return float(np.interp(level, levels, widths)) if levels[0] <= level <= levels[-1] else None


def fit_target(
    label: Float64, mean: Float64, variance: Float64, *, binary: bool, method: str, note: str
) -> tuple[Calibration, str]:
    """Fit one target. If it cannot be fitted it has no interval; the module's other targets are unaffected.

    Args:
        label: (N,) natural units, NaN where missing.
        mean: (N,) predicted.
        variance: (N,) total variance.
        binary: whether it is a 0/1 target, which gets a probability and prediction sets instead of an interval.
        method: one of :data:`METHODS`; not used for binary targets.
        note: description of the data; the number of labels is prepended.

    Returns:
        The calibration, and why there is none ("" if there is one).
    """
    count = int(np.isfinite(label).sum())
    fitted_on = f"{count} {note}"
    try:
        if binary:
            kind, curve = fit_probability(label, mean)
            sets = fit_sets(label, apply_curve(curve, mean))
            return Calibration("none", 1.0, (), f"{kind} on {fitted_on}", curve, sets), ""
        fit = variance_factor_closed_form if method == "closed-form" else variance_factor_coverage
        factor = fit(label, mean, variance)
        calibration = Calibration("variance-factor", factor, (), fitted_on)
        if method == "conformal":
            widths = conformal_table(label, mean, variance * factor)
            calibration = replace(calibration, method="conformal", half_widths=tuple(sorted(widths.items())))
        return calibration, ""
    except UsageError as error:
        method_of_none = "none" if binary else "conformal"
        return Calibration(method_of_none, 1.0, (), f"not fitted on {fitted_on}: {error}"), str(error)  # type: ignore[arg-type]


def labels_needed(level: float) -> int:
    """Fewest labels with which split conformal supports a level: ceil((n + 1) level) <= n."""
    return int(np.ceil(level / (1.0 - level) - 1e-9))
