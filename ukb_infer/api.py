"""The functions of the Python API, ``project``, ``stitch`` and ``predict``; each imports what it needs when called.

They do not change the caller's process: environment, working directory, threads, signals, warnings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ukb_infer.errors import UkbInferError, UsageError
from ukb_infer.imaging import project_path, stitch_path
from ukb_infer.imaging.recipes import DEFAULT_RECIPE
from ukb_infer.imaging.volumes.names import DEFAULT_CONTRASTS, DEFAULT_SPACING
from ukb_infer.records import Projection, ReadingOptions, SwapMode
from ukb_infer.text import suggest

if TYPE_CHECKING:
    import pandas as pd

    from ukb_infer.imaging.volumes.stitch import Stitch

__all__ = ["predict", "project", "stitch"]


def project(
    path: str | Path,
    *,
    expected_stations: int = 6,
    allow_missing_stations: bool = False,
    strict: bool = False,
    recipe: str = DEFAULT_RECIPE,
    swaps: SwapMode = "flag",
    keep_uncorrected: bool = False,
) -> Projection:
    """Fuse one scan and project it.

    Args:
        path: a 20201 zip, a folder of DICOM slices or of NIfTI stations, or a cached ``.npy``.
        expected_stations: stations of the protocol, 0 for any number.
        allow_missing_stations: use and flag a scan with fewer stations.
        strict: every flag is an error.
        recipe: a key of :data:`ukb_infer.imaging.recipes.RECIPES`.
        swaps: flag, correct or ignore fat-water swaps (``docs/quality.md``).
        keep_uncorrected: ``.uncorrected`` is the array before swaps were corrected, None where none were.

    Returns:
        ``.image`` is the recipe's array, uint8 (3, 256, 256) by ``mimir-1``: water, fat, fat fraction; ``.flags`` the
        reasons of repairs; ``.measures`` the image quality (``docs/quality.md``).

    Raises:
        UsageError: contradictory options.
        ScanError: the scan cannot be used; ``.reason`` is the code, the message says what to do.
    """
    from ukb_infer.inference.config import check_reading, check_swaps
    from ukb_infer.quality import inspect_scan

    reading = ReadingOptions(expected_stations, allow_missing_stations, strict)
    check_reading(reading)
    check_swaps(swaps)
    inspect = partial(inspect_scan, swaps=swaps)
    return project_path(Path(path), reading, recipe, inspect, keep_uncorrected=keep_uncorrected)


def stitch(
    path: str | Path,
    *,
    contrasts: Sequence[str] = DEFAULT_CONTRASTS,
    spacing: str | float = DEFAULT_SPACING,
    expected_stations: int = 6,
    allow_missing_stations: bool = False,
    strict: bool = False,
    swaps: SwapMode = "flag",
    keep_uncorrected: bool = False,
) -> Stitch:
    """Fuse one scan's stations into one body.

    Args:
        path: a 20201 zip, or a folder of DICOM slices or NIfTI stations.
        contrasts: of water, fat, in, opposed, fraction; only these are read.
        spacing: native, recipe, or a number of mm.
        expected_stations: stations of the protocol, 0 for any number.
        allow_missing_stations: use and flag a scan with fewer.
        strict: every flag is an error.
        swaps: flag, correct or ignore fat-water swaps (``docs/quality.md``).
        keep_uncorrected: ``.uncorrected`` is the body before swaps were corrected, None where none were.

    Returns:
        ``.image(contrast)`` fuses one, (x to the right, y to the front, z up) float32; ``.grid.affine`` places it,
        (4, 4) voxel to RAS mm; ``.scan.flags`` are the codes of what was repaired, ``.measures`` the quality by name.

    Raises:
        ScanError: the scan cannot be used; ``.reason`` is the code, the message says what to do.
        UsageError: no such contrast or spacing.
    """
    from ukb_infer.inference.config import check_swaps
    from ukb_infer.quality import inspect_scan

    options = ReadingOptions(expected_stations, allow_missing_stations, strict)
    check_swaps(swaps)
    inspect = partial(inspect_scan, swaps=swaps)
    return stitch_path(Path(path), options, contrasts, str(spacing), inspect, keep_uncorrected=keep_uncorrected)


def predict(
    paths: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    modules: str | Path | Sequence[str | Path] = (),
    level: float = 0.95,
    targets: str | Sequence[str] = (),
    device: str = "auto",
    workers: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Predict scans and return the estimates.

    Args:
        paths: one or more inputs, as for ``ukb-infer predict``.
        out: run folder, resumed if it exists; None for a temporary one.
        modules: one or more names or folders; empty uses ``UKB_INFER_MODULES``.
        level: of the prediction intervals, e.g. 0.95.
        targets: one or more names to return, empty for all.
        device: auto, cpu, cuda or cuda:N.
        workers: worker processes; 0 works in this one (safe in notebooks and without a ``__main__`` guard).
        **options: further fields of :class:`ukb_infer.inference.PredictConfig`.

    Returns:
        Frame indexed by eid (text) and instance with ``<target>_mean``, ``_sd``, ``_ci95_lower``, ``_ci95_upper`` in
        natural units; ``.attrs["failed"]`` maps the scans that failed to their messages, ``.attrs["warnings"]`` has
        the warnings of modules and exclusion lists.

    Raises:
        UsageError: contradictory options.
        RunError: no inputs, or an unusable folder.
        ModuleError: a module cannot be loaded.
    """
    from ukb_infer.inference.config import PredictConfig
    from ukb_infer.inference.predict import run_predict
    from ukb_infer.runs.read import as_frame, read_run

    known = {f.name for f in fields(PredictConfig)} - {"dry_run"}
    for name in options.keys() - known:
        raise UsageError(f"no option of that name{suggest(name, known)}", field=name)
    options |= {name: _several(options[name]) for name in options.keys() & {"exclude"}}
    with tempfile.TemporaryDirectory(prefix="ukb-infer-") as temporary:
        folder = Path(out) if out is not None else Path(temporary) / "run"
        try:
            config = PredictConfig(
                inputs=tuple(map(str, _several(paths))), out=folder, modules=tuple(map(str, _several(modules))),
                level=level, targets=_several(targets), device=device, workers=workers, **options,
            )  # fmt: skip
            summary = run_predict(config)
        except UkbInferError as error:
            error.call_options({"inputs": "`paths`"})
            raise
        run = read_run(folder)
    frame = as_frame(run)
    frame.attrs["failed"] = {s.key.scan: s.result.message for s in run.scans if s.result.status == "failed"}
    frame.attrs["warnings"] = list(summary.warnings)
    return frame


def _several(given: Any) -> tuple[Any, ...]:
    """One name or path, or several of them."""
    return (given,) if isinstance(given, (str, Path)) else tuple(given)
