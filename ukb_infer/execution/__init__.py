"""Worker processes, journal, lock, shards and Dask; independent of MRI and torch."""

from ukb_infer.execution.journal import Journal, JournalInput, JournalRow
from ukb_infer.execution.lock import RunLock, current_holder
from ukb_infer.execution.shards import Shard, parse_shard
from ukb_infer.execution.workers import Failure, run_in_workers, usable_cores
