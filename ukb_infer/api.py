"""The Python API: ``project``, ``predict``, ``load_module``, ``read_estimates`` (floor 5)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ukb_infer.imaging.reading import project_path
from ukb_infer.inference.tables import read_estimates
from ukb_infer.modules import load_module
from ukb_infer.records import Projection, ReadingOptions

__all__ = ["load_module", "predict", "project", "read_estimates"]


def project(
    path: str | Path,
    *,
    expected_stations: int = 6,
    allow_missing_stations: bool = False,
    strict: bool = False,
) -> Projection:
    """Fuse one scan and project it by recipe ``mimir-1``.

    Args:
        path: a 20201 zip, a folder of DICOM slices or of NIfTI stations, or a cached ``.npy``.
        expected_stations: stations of the protocol, 0 for any number.
        allow_missing_stations: use and flag a scan with fewer.
        strict: every flag is an error.

    Returns:
        ``.image`` is uint8 (3, 256, 256): water, fat, fat fraction; ``.flags`` the codes of what was repaired.

    Raises:
        ScanError: the scan cannot be used; ``.reason`` is the code, the message says what to do.
    """
    return project_path(Path(path), ReadingOptions(expected_stations, allow_missing_stations, strict))


def predict(
    paths: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    modules: Sequence[str | Path] = (),
    level: float = 0.95,
    targets: Sequence[str] = (),
    device: str = "auto",
    workers: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Predict scans and return the estimates.

    Args:
        paths: one or more inputs, as ``ukb-infer predict`` takes them.
        out: run folder to write (and to continue); None for a temporary one.
        modules: names or folders; empty uses ``UKB_INFER_MODULES``.
        level: of the prediction intervals, e.g. 0.95.
        targets: names to return, empty for all.
        device: auto, cpu, cuda or cuda:N.
        workers: worker processes; 0 works in this one (safe in notebooks and without a ``__main__`` guard).
        **options: further fields of :class:`ukb_infer.inference.PredictConfig`.

    Returns:
        Frame indexed by eid (text) and instance with ``<target>_mean``, ``_sd``, ``_ci95_lower``, ``_ci95_upper`` in
        natural units; ``.attrs["failed"]`` maps the scans that failed to their messages.

    Raises:
        UsageError: contradictory options.
        RunError: no inputs, or an unusable folder.
        ModuleError: a module does not load.
    """
    from ukb_infer.inference.config import PredictConfig
    from ukb_infer.inference.predicting import run_predict

    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    with tempfile.TemporaryDirectory(prefix="ukb-infer-") as temporary:
        folder = Path(out) if out is not None else Path(temporary) / "run"
        config = PredictConfig(
            inputs=tuple(str(p) for p in given), out=folder, modules=tuple(str(m) for m in modules), level=level,
            targets=tuple(targets), device=device, workers=workers, **options,
        )  # fmt: skip
        run_predict(config)
        frame = read_estimates(folder)
        scans = pd.read_csv(folder / "scans.csv", dtype=str, keep_default_na=False)
    failed = scans[scans["status"] == "failed"]
    frame.attrs["failed"] = dict(zip(failed["scan"], failed["message"], strict=True))
    return frame
