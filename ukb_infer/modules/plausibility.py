"""Whether a scan's estimates contradict each other, by the rules of ``ukb_infer.targets.rules``.

The residual of a rule is divided by its standard deviation, which is propagated from the calibrated ones of the scan's
own estimates as if their errors were independent. They are not: on reference scans a factor on it is found that makes
up for errors that go together and for true differences of both sides. Limits are what ordinary scans reach (conformal).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ukb_infer.regression import Mixture
from ukb_infer.targets.rules import Rule, rules_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Share of ordinary scans that are flagged; of few reference scans the largest one is the limit.
RATE = 0.002
#: Fewest reference scans for limits.
MIN_FOR_RULES = 200
#: Quantiles of ordinary scans: of the residual what counts as one standard deviation, and how long the tail is; and of
#: the standard deviation the largest that excuses a scan, for networks are unsure of what they do not know.
ONE_SD, TAIL, UNSURE = 0.683, 0.99, 0.95
#: What is stored of a rule.
COLUMNS = ("centre", "factor", "widest", "limit")
#: Smallest number that is divided by, natural units.
SMALLEST = 1e-12


def fit_rules(names: Sequence[str], estimates: Mixture) -> dict[str, Float32]:
    """Limits of the rules from the estimates of ordinary scans.

    Args:
        names: of T targets.
        estimates: (N, T) in natural units.

    Returns:
        Of each rule, by its words: the median of its residual, the factor on its standard deviation, the largest
        standard deviation before that factor, and the limit in what comes out. A share ``RATE`` of ordinary scans is
        beyond the limit of any rule. Empty for fewer scans than ``MIN_FOR_RULES``.
    """
    count, rules = len(estimates.mean), rules_of(names)
    if count < MIN_FOR_RULES or not rules:
        return {}
    centres = np.array([np.median(rule.residual(names, estimates.mean)) for rule in rules])
    sds = np.stack([rule.standard_deviation(names, estimates.total_variance) for rule in rules])
    widest = np.quantile(sds, UNSURE, axis=1)
    found = np.stack([_standardized(r, names, estimates, *how) for r, *how in zip(rules, centres, widest, strict=True)])
    factors = np.maximum(np.quantile(np.abs(found), ONE_SD, axis=1), SMALLEST)
    sizes = np.stack([_size(rule, row) for rule, row in zip(rules, found, strict=True)])
    tails = np.maximum(np.quantile(sizes, TAIL, axis=1), SMALLEST)
    place = min(math.ceil((count + 1) * (1.0 - RATE)), count) - 1
    limits = np.sort((sizes / tails[:, None]).max(axis=0))[place] * tails / factors
    columns = np.stack([centres, factors, widest, limits], axis=1).astype(np.float32)
    return dict(zip((rule.words for rule in rules), columns, strict=True))


def rescale_rules(
    limits: Mapping[str, Float32], names: Sequence[str], before: Float64, after: Float64
) -> dict[str, Float32]:
    """The same limits for variances that were calibrated since.

    Args:
        limits: of :func:`fit_rules`; those in natural units stay.
        names: of T targets.
        before: (T,) typical variances of the targets when the limits were fitted, natural units squared.
        after: (T,) the same now.
    """
    scaled = dict(limits)
    for rule in rules_of(names):
        own = limits.get(rule.words)
        if own is not None and len(own) == len(COLUMNS):
            old, new = (float(rule.standard_deviation(names, v[None])[0]) for v in (before, after))
            scaled[rule.words] = own * np.array([1.0, old / new, new / old, 1.0], np.float32)
    return scaled


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
            factor, widest = scale
            value = float(_standardized(rule, names, estimate, centre, widest)[0]) / factor
            in_sds = f", {abs(value):.3g} of its standard deviations"
        if _size(rule, np.asarray(value)) > limit:
            found.append(f"{rule.words} is off by {offset:+.3g}{in_sds} (limit {limit:.3g})")
    return found


def _standardized(rule: Rule, names: Sequence[str], estimates: Mixture, centre: float, widest: float) -> Float64:
    """(N,) residual less its centre, in standard deviations as of independent errors, none of them above the widest."""
    sd = np.minimum(rule.standard_deviation(names, estimates.total_variance), widest)
    return np.asarray((rule.residual(names, estimates.mean) - centre) / np.maximum(sd, SMALLEST))


def _size(rule: Rule, standardized: Float64) -> Float64:
    """How far a rule is broken: either way, or only upwards where one side is at most the other."""
    return standardized if rule.kind == "at_most" else np.abs(standardized)
