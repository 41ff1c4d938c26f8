"""``stitch``: scans in, fused bodies out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ukb_infer.imaging.volumes.names import FUSED, UNCORRECTED
from ukb_infer.inference.config import StitchConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.scan_files import FileRun, run_scan_files
from ukb_infer.inference.work import Outcome, finished, writing
from ukb_infer.records import ReadingOptions, SwapMode
from ukb_infer.runs.files import BIDS_IGNORE, DESCRIPTION, fused_files, not_bids
from ukb_infer.runs.summary import Progress, RunSummary
from ukb_infer.storage import atomic_write_text

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.stitch import Stitch

#: About what a contrast of a full-size scan takes at the recipe's spacing, MB.
MEGABYTES = 18.0


@dataclass(frozen=True)
class StitchJob:
    """One scan to stitch.

    Attributes:
        scan: what to read.
        options: how.
        contrasts: names of the contrasts to write.
        spacing: native, recipe or a number of mm.
        out: folder of the run; None writes to a temporary one, to see how long it takes.
        digest: also compute the SHA-256 of the input.
        swaps: what is done about fat-water swaps.
        keep_uncorrected: also write what a scan was before they were corrected.
    """

    scan: ScanInput
    options: ReadingOptions
    contrasts: tuple[str, ...]
    spacing: str
    out: Path | None = None
    digest: bool = False
    swaps: SwapMode = "flag"
    keep_uncorrected: bool = False

    def make(self) -> Stitch:
        """Read, check and measure the scan, and find its seams."""
        from ukb_infer.imaging.reading import stitch_path
        from ukb_infer.quality import inspect_scan

        inspect, keep = partial(inspect_scan, swaps=self.swaps), self.keep_uncorrected
        return stitch_path(self.scan.path, self.options, self.contrasts, self.spacing, inspect, keep_uncorrected=keep)

    def keep(self, made: Stitch) -> Outcome:
        """Fuse and write one contrast after the other."""
        with writing(self.scan.key.scan):
            if self.out is not None:
                self._write(made, self.out)
            else:
                with tempfile.TemporaryDirectory(prefix="ukb-infer-") as folder:
                    self._write(made, Path(folder))
        return finished(made.scan.flags, made.scan.messages, len(made.scan.stations), measures=made.measures)

    def _write(self, made: Stitch, folder: Path) -> None:
        from ukb_infer.imaging.volumes.export import write_stitch

        write_stitch(made, self.contrasts, folder)
        if made.uncorrected is None and self.keep_uncorrected:
            for path in fused_files(folder, self.scan.key, processing=[UNCORRECTED]):
                path.unlink(missing_ok=True)  # of an earlier file of the scan


def run_stitch(config: StitchConfig, progress: Progress | None = None) -> RunSummary:
    """Stitch every scan, continuing what is there.

    Args:
        config: of the run.
        progress: told how far it is.

    Returns:
        Counts, reasons and the exit code.

    Raises:
        UsageError: contradictory options, two files of one key, or another run in ``--out``.
        RunError: no inputs, an unusable folder, a locked run.
    """
    out, common = config.out.absolute(), (config.reading, config.contrasts, config.spacing)
    run = FileRun(
        name="stitch",
        config=config,
        identity=config.identity(),
        job=lambda scan: StitchJob(scan, *common, out, config.verify, config.swaps, config.keep_uncorrected),
        try_job=lambda scan: StitchJob(scan, *common, swaps=config.swaps),
        files=lambda key: fused_files(config.out, key, config.contrasts, [FUSED]),
        all_files=lambda key: fused_files(config.out, key),
        megabytes=MEGABYTES * len(config.contrasts) * config.finer_than_recipe,
        prepare=lambda: _prepare(config.out),
    )
    return run_scan_files(run, progress)


def _prepare(out: Path) -> None:
    """Make the run's folder a BIDS derivative dataset."""
    from ukb_infer.imaging.volumes.export import dataset_description

    atomic_write_text(out / DESCRIPTION, dataset_description())
    atomic_write_text(out / BIDS_IGNORE, "".join(f"{name}\n" for name in not_bids()))
