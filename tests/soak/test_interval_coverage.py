"""Run by hand (`make soak`): what the intervals promise, on 1,000 fresh phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ukb_infer.demo.ensemble import CALIBRATION_SEED
from ukb_infer.demo.phantoms import PhantomSet, make_phantom_set
from ukb_infer.modules import load_module
from ukb_infer.regression import (
    Mixture,
    conformal_half_width,
    gaussian_quantile,
    prediction_interval,
    variance_factor_coverage,
)
from ukb_infer.targets import TARGETS
from ukb_infer.training.ensemble import predict_in_batches

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
CONTINUOUS = [k for k, spec in enumerate(TARGETS.values()) if spec.kind == "continuous"]
FRESH_SEED, FRESH, CALIBRATION = 808, 1000, 4000
Float64 = NDArray[np.float64]


def _judge(name: str, coverage: Float64) -> tuple[float, float]:
    """Share of (target, level) pairs within 3 binomial standard errors; largest mean deviation over levels, points."""
    levels = np.array(LEVELS)
    error = np.sqrt(levels * (1 - levels) / FRESH)
    within = float((np.abs(coverage - levels) <= 3 * error).mean())
    deviation = 100 * (coverage.mean(axis=0) - levels)
    print(f"\n{name}: {100 * within:.1f} % of pairs within 3 standard errors; mean deviation by level, points: "
          + ", ".join(f"{100 * p:g} %: {d:+.2f}" for p, d in zip(LEVELS, deviation, strict=True)))  # fmt: skip
    return within, float(np.abs(deviation).max())


def _coverage(labels: Float64, p: Mixture, widths: Float64) -> Float64:
    """(targets, levels) observed coverage; widths (targets, levels) in total sd."""
    found = np.empty((len(CONTINUOUS), len(LEVELS)))
    specs = list(TARGETS.values())
    for row, k in enumerate(CONTINUOUS):
        sd = np.sqrt(p.total_variance[:, k])
        for column in range(len(LEVELS)):
            low, high = prediction_interval(p.mean[:, k], sd, widths[row, column], specs[k].lower, specs[k].upper)
            found[row, column] = ((labels[:, k] >= low) & (labels[:, k] <= high)).mean()
    return found


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_intervals_on_a_thousand_fresh_phantoms(tmp_path: Path) -> None:
    module = load_module("phantom-demo")
    images, labels = make_phantom_set(PhantomSet(FRESH_SEED, FRESH), tmp_path / "fresh")
    fresh = predict_in_batches(module, images)
    widths = np.array([[module.half_width(k, level) for level in LEVELS] for k in CONTINUOUS])
    within, deviation = _judge("shipped (conformal)", _coverage(labels, fresh, widths))
    assert within >= 0.95
    assert deviation <= 2.5

    images, known = make_phantom_set(PhantomSet(CALIBRATION_SEED, CALIBRATION), tmp_path / "calibration")
    held_out = predict_in_batches(module, images)
    variance = held_out.total_variance
    factors = [variance_factor_coverage(known[:, k], held_out.mean[:, k], variance[:, k]) for k in CONTINUOUS]
    gaussian = np.sqrt(np.array(factors))[:, None] * np.array([gaussian_quantile(level) for level in LEVELS])
    _, deviation = _judge("variance factor", _coverage(labels, fresh, gaussian))
    assert deviation <= 2.5

    # Label noise that training did not have, shared by calibration and test: 0.3 sd of each target.
    rng = np.random.default_rng(9)
    noise = 0.3 * known.std(axis=0)
    noisy, noisy_fresh = (v + noise * rng.normal(size=v.shape) for v in (known, labels))
    widths = np.empty((len(CONTINUOUS), len(LEVELS)))
    for row, k in enumerate(CONTINUOUS):
        score = np.abs(noisy[:, k] - held_out.mean[:, k]) / np.sqrt(variance[:, k])
        widths[row] = [conformal_half_width(score, level) for level in LEVELS]
    unclipped = np.empty_like(widths)
    for row, k in enumerate(CONTINUOUS):  # noise passes physical limits, so the intervals are judged unclipped
        score = np.abs(noisy_fresh[:, k] - fresh.mean[:, k]) / np.sqrt(fresh.total_variance[:, k])
        unclipped[row] = [(score <= w).mean() for w in widths[row]]
    within, deviation = _judge("conformal, shared label noise", unclipped)
    assert within >= 0.95
    assert deviation <= 2.5
