"""Worker processes and the resume journal; knows no MRI and no torch."""

from ukb_infer.execution.journal import Journal, JournalInput, JournalRow
from ukb_infer.execution.lock import RunLock, current_holder
from ukb_infer.execution.shards import Shard, parse_shard
from ukb_infer.execution.workers import Failure, run_in_workers
