"""Atomic writes, hashes, and records from files."""

from ukb_infer.storage.atomic import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    csv_text,
    save_array,
    sha256_file,
    write_texts,
)
from ukb_infer.storage.plain import from_plain
