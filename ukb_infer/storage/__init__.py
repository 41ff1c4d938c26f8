"""Atomic writes and hashes (floor 1)."""

from ukb_infer.storage.atomic import atomic_path, atomic_write_bytes, atomic_write_text, sha256_file

__all__ = ["atomic_path", "atomic_write_bytes", "atomic_write_text", "sha256_file"]
