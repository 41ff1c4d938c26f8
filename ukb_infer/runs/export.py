"""``export``: the tables of the scans finished so far."""

from __future__ import annotations

import os
from pathlib import Path

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import Journal
from ukb_infer.runs.files import holds_run
from ukb_infer.runs.other_forms import write_bids, write_stata
from ukb_infer.runs.read import read_run
from ukb_infer.runs.summary import count_results
from ukb_infer.runs.tables import write_facts, write_tables


def run_export(folder: Path, out: Path, *, stata: bool = False, bids: bool = False) -> list[Path]:
    """Write the tables of the scans a run has finished into another folder, also during the run.

    Args:
        folder: of the run.
        out: folder for them.
        stata: also write the estimates as ``estimates.dta``, with names of at most 32 characters.
        bids: also write them as a BIDS phenotype table.

    Raises:
        UsageError: both are the same folder, or ``out`` is that of another run.
        RunError: not a run, or the folder cannot be written.
    """
    if os.path.realpath(out) == os.path.realpath(folder):
        raise UsageError("`out` is the run itself, which writes its tables at its end; choose another folder")
    if holds_run(out):
        raise UsageError(f"`out` {out} contains another run, whose tables would be replaced; choose another folder")
    with Journal(folder, read_only=True) as journal:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"`out` {out} cannot be used as a folder ({error.strerror}); choose another") from error
        files = write_tables(out, journal)
        facts = journal.get("facts")
        if facts is not None:
            counts = count_results(journal)
            files.append(write_facts(out, facts | counts.to_plain() | {"partial": counts.unfinished > 0}))
    if stata or bids:
        run = read_run(out)
        files += [write_stata(run, out)] if stata else []
        files += write_bids(run, out) if bids else []
    return files
