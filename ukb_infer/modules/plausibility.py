"""Whether a scan's estimates contradict each other, by the rules of ``ukb_infer.targets.rules``.

The residual of a rule is divided by its standard deviation, which is propagated from the calibrated ones of the scan's
own estimates. What errors that go together, or true differences between two sides, make of it is found on reference
scans: a factor on the standard deviation. Largest ordinary values are found there, too (a conformal limit).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ukb_infer.regression import Mixture
from ukb_infer.targets.rules import Rule, rules_of

Float32, Float64 = NDArray[np.float32], NDArray[np.float64]

#: Share of ordinary scans that are flagged, and the fewest reference scans that tell a limit for that.
RATE = 0.005
MIN_FOR_RULES = math.ceil(1.0 / RATE)
#: Quantiles of ordinary scans' residuals: what counts as one standard deviation, and how long the tail is.
ONE_SD, TAIL = 0.683, 0.99
#: Smallest standard deviation that is divided by, of natural units.
SMALLEST = 1e-12


def fit_rules(names: Sequence[str], estimates: Mixture) -> dict[str, Float32]:
    """Limits of the rules from the estimates of ordinary scans.

    Args:
        names: of T targets.
        estimates: (N, T) in natural units.

    Returns:
        Of each rule, by its words: the median of its residual, the factor on its standard deviation, and the limit in
        such standard deviations. A share ``RATE`` of ordinary scans is beyond the limit of any rule. Empty for fewer
        scans than ``MIN_FOR_RULES``.
    """
    count = len(estimates.mean)
    rules = rules_of(names)
    if count < MIN_FOR_RULES or not rules:
        return {}
    centres = [float(np.median(rule.residual(names, estimates.mean))) for rule in rules]
    found = np.stack([_standardized(r, names, estimates, c) for r, c in zip(rules, centres, strict=True)])
    sizes = np.stack([_size(rule, row) for rule, row in zip(rules, found, strict=True)])
    factors = np.maximum(np.quantile(np.abs(found), ONE_SD, axis=1), SMALLEST)
    tails = np.maximum(np.quantile(sizes, TAIL, axis=1), SMALLEST)
    place = math.ceil((count + 1) * (1.0 - RATE)) - 1
    worst = np.sort((sizes / tails[:, None]).max(axis=0))[place]
    limits = worst * tails / factors
    return {
        rule.words: np.array(numbers, np.float32)
        for rule, *numbers in zip(rules, centres, factors, limits, strict=True)
    }


def contradictions(limits: Mapping[str, Float32], names: Sequence[str], estimate: Mixture) -> list[str]:
    """Rules that one scan's estimates break by more than reference scans do, a sentence each.

    Args:
        limits: of :func:`fit_rules`; or, in modules made before, the median and the largest deviation of each rule in
            natural units.
        names: of T targets.
        estimate: (1, T) in natural units.
    """
    found = []
    for rule in rules_of(names):
        if rule.words not in limits:
            continue
        centre, *scale, limit = map(float, limits[rule.words])
        offset = float(rule.residual(names, estimate.mean)[0]) - centre
        value, in_sds = offset, ""
        if scale:
            value = float(_standardized(rule, names, estimate, centre)[0]) / scale[0]
            in_sds = f", {abs(value):.3g} of its standard deviations"
        if _size(rule, np.asarray(value)) > limit:
            found.append(f"{rule.words} is off by {offset:+.3g}{in_sds} (limit {limit:.3g})")
    return found


def _standardized(rule: Rule, names: Sequence[str], estimates: Mixture, centre: float) -> Float64:
    """(N,) residual less its centre, in standard deviations as of independent errors."""
    sd = rule.standard_deviation(names, estimates.total_variance)
    return np.asarray((rule.residual(names, estimates.mean) - centre) / np.maximum(sd, SMALLEST))


def _size(rule: Rule, standardized: Float64) -> Float64:
    """How far a rule is broken: either way, or only upwards where one side is at most the other."""
    return standardized if rule.kind == "at_most" else np.abs(standardized)
