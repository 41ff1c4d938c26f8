"""Layout of the tables: how the modules' targets become columns, intervals and probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ukb_infer.inference.config import PredictConfig
from ukb_infer.inference.engine import Engine, OutputTarget
from ukb_infer.modules import Calibration, half_width_of
from ukb_infer.runs.columns import OutputSpec, WrittenPart, WrittenTarget
from ukb_infer.runs.files import DICTIONARY


def output_spec(config: PredictConfig, engine: Engine) -> OutputSpec:
    """The layout of a run's tables.

    Args:
        config: level, targets and formats.
        engine: the modules, with their calibrations.

    Raises:
        UsageError: no module has a target.
    """
    tails, behind = {}, 3 * len(engine.targets)
    for target in engine.targets:
        if len(target.sources) > 1:
            tails[target.spec.name] = behind
            behind += 2 * len(target.sources)
    written = tuple(_written(config, engine, t, tails.get(t.spec.name, -1)) for t in engine.select(config.targets))
    stored = tuple(t.spec.name for t in engine.targets)
    return OutputSpec(
        stored=stored, targets=written, level=config.level, level_name=config.level_name,
        uncertainty=config.uncertainty, parquet=config.parquet, outliers=_outlier_words(engine),
        has_percentile=bool(engine.outlier_hashes),
    )  # fmt: skip


def _outlier_words(engine: Engine) -> str:
    """What the outlier percentile of the run is, for the dictionary."""
    without = [m.manifest.name for m in engine.modules if m.outliers is None]
    if len(without) == len(engine.modules):
        return "not available: the modules have no outlier reference (ukb-infer modules fit-outliers adds one)"
    known = [f"{m.manifest.name}: {e.fitted_on}" for m in engine.modules if (e := m.manifest.outputs.outliers)]
    words = f"reference scans of {'; '.join(known)}"
    return words + (f"; not available for {', '.join(without)}" if without else "")


def _written(config: PredictConfig, engine: Engine, target: OutputTarget, tail: int) -> WrittenTarget:
    """Layout of one target and description of its interval or probability."""
    spec, calibrations = target.spec, engine.calibrations(target)
    alone = len(calibrations) == 1
    half = half_width_of(calibrations[0], config.level) if alone else None
    parts = tuple(
        WrittenPart(weight, tuple(a for a, _ in c.half_widths), tuple(b for _, b in c.half_widths), c.curve)
        for weight, c in zip(engine.weights(target), calibrations, strict=False)
    )
    sets = None
    if spec.kind == "binary":
        sets = _sets(calibrations[0], config.level) if alone and config.prediction_sets else None
        words = _probability_words(calibrations)
    elif alone:
        words = _interval_words(calibrations[0], config.level, together=target.combination is not None)
    elif any(half_width_of(c, config.level) is None for c in calibrations):
        percent = f"{100 * config.level:g} %"
        words, tail, parts = f"none at {percent}: too few labels in a module's calibration", -1, ()
    else:
        words = (
            f"quantiles of the mixture of {len(calibrations)} modules, not calibrated together: tends to be too wide"
        )
    return WrittenTarget(
        name=spec.name, unit=spec.unit, field=spec.field, kind=spec.kind, lower=spec.lower, upper=spec.upper,
        half_width=half, interval=words, parts=parts if tail >= 0 or spec.kind == "binary" else (),
        tail=tail if not alone else -1, sets=sets,
    )  # fmt: skip


def _interval_words(calibration: Calibration, level: float, *, together: bool) -> str:
    """Description of a continuous target's interval, or why there is none."""
    whose = " of the modules together" if together else ""
    fitted = f" ({calibration.fitted_on})" if calibration.fitted_on else ""
    if calibration.method == "none":
        return "not calibrated: Gaussian with the networks' own sd"
    if calibration.method == "variance-factor":
        return f"Gaussian with calibrated variance{whose}{fitted}"
    if half_width_of(calibration, level) is None:
        highest = f"at most {100 * calibration.half_widths[-1][0]:g} %" if calibration.half_widths else "no level"
        return f"none at {100 * level:g} %: the calibration has labels for {highest}{fitted}"
    return f"conformal{whose}{fitted}"


def _probability_words(calibrations: Sequence[Calibration]) -> str:
    """Description of a binary target's probability."""
    if not all(c.curve for c in calibrations):
        return ""
    fitted = "; ".join(dict.fromkeys(c.fitted_on for c in calibrations))
    return f"calibrated ({fitted})" if len(calibrations) == 1 else f"average of calibrated probabilities ({fitted})"


def _sets(calibration: Calibration, level: float) -> tuple[float, float] | None:
    """Limits of the prediction sets at a level; None if there were too few labels."""
    rows = np.array(calibration.sets)
    if not rows.size or not rows[0, 0] <= level <= rows[-1, 0]:
        return None
    return float(np.interp(level, rows[:, 0], rows[:, 1])), float(np.interp(level, rows[:, 0], rows[:, 2]))


def interval_warnings(spec: OutputSpec, *, sets_wanted: bool) -> tuple[str, ...]:
    """Warnings about targets without interval or set, one per kind.

    Args:
        spec: of the tables.
        sets_wanted: whether prediction sets were requested.
    """
    percent = f"{100 * spec.level:g} %"
    bare = [t.name for t in spec.targets if t.kind != "binary" and not t.has_interval]
    without = [t.name for t in spec.targets if sets_wanted and t.kind == "binary" and t.sets is None]
    reasons = (
        (bare, "interval", f"too few labels in their calibration; see {DICTIONARY}"),
        (
            without,
            "prediction sets",
            "not calibrated, or with too few labels of a class, or by several modules separately",
        ),
    )
    return tuple(f"no {percent} {what} for {_listed(names)}: {why}" for names, what, why in reasons if names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
