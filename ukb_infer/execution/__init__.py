"""Worker processes and the resume journal; knows no MRI and no torch (floor 1)."""

from ukb_infer.execution.journal import Journal, JournalRow
from ukb_infer.execution.lock import RunLock
from ukb_infer.execution.workers import Failure, run_in_workers

__all__ = ["Failure", "Journal", "JournalRow", "RunLock", "run_in_workers"]
