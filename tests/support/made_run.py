"""The folder of a run of `predict` with given estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.execution import Journal, JournalInput, JournalRow
from ukb_infer.records import ScanKey, ScanResult
from ukb_infer.runs.columns import OutputSpec, WrittenTarget
from ukb_infer.runs.tables import write_facts, write_tables
from ukb_infer.targets import TARGETS


def make_run(
    folder: Path,
    scans: Sequence[str],
    estimates: Mapping[str, NDArray[np.float64]],
    sd: float = 1.0,
    training: Mapping[str, Any] | None = None,
    made_by: tuple[str, str] = ("made", "0"),
) -> Path:
    """Write a run whose continuous targets have these means and one sd.

    Args:
        folder: of the run.
        scans: (N,) names.
        estimates: (N,) means by target.
        sd: of all estimates.
        training: what the module recorded of its training.
        made_by: name and hash of the module.
    """
    specs = [TARGETS[name] for name in estimates]
    written = tuple(
        WrittenTarget(
            name=s.name, unit=s.unit, field=s.field, kind=s.kind, lower=s.lower, upper=s.upper, half_width=1.96
        )
        for s in specs
    )
    spec = OutputSpec(stored=tuple(estimates), targets=written, level=0.95, level_name="ci95", uncertainty="total",
                      parquet=False)  # fmt: skip
    values = np.stack([[m, np.full(len(m), sd**2), np.zeros(len(m))] for m in estimates.values()])  # (T, 3, N)
    rows = {scan: values[:, :, k].ravel() for k, scan in enumerate(scans)}
    keys = sorted(map(ScanKey.from_name, scans), key=lambda key: key.sort_key)
    result = ScanResult(status="ok", stations=6, measures={"snr": 20.0})
    targets = [{"name": t.name, "unit": t.unit, "field": t.field, "kind": t.kind} for t in written]
    name, digest = made_by
    module = {"name": name, "version": "1", "sha256": digest, "warning": "", "training": dict(training or {})}
    facts = {"level": 0.95, "level_name": "ci95", "targets": targets, "modules": [module]}
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder) as journal:
        journal.put("output", spec.to_plain())
        journal.put("facts", facts)
        journal.set_inputs(JournalInput(key=k, given=f"in/{k.scan}.zip", excluded=False) for k in keys)
        journal.record(JournalRow(scan=scan, result=result, payload=row.tobytes()) for scan, row in rows.items())
        write_tables(folder, journal)
    write_facts(folder, facts)
    return folder
