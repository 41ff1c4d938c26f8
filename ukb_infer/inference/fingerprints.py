"""Fingerprints: whether the file of a scan has changed since it was read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ukb_infer.storage import sha256_file


def fingerprint(path: Path) -> str:
    """Size and modification time of a file or of all files of a folder, and their number; or "missing"."""
    try:
        stats = [p.stat() for p in _files_of(path)]
    except OSError:
        return "missing"
    return f"{sum(s.st_size for s in stats)}:{max((s.st_mtime_ns for s in stats), default=0)}:{len(stats)}"


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and contents of a folder's files; "" if it cannot be read."""
    try:
        if not path.is_dir():
            return sha256_file(path) if path.is_file() else ""  # pipes and devices never end
        lines = [f"{file.relative_to(path)} {sha256_file(file)}" for file in _files_of(path)]
    except OSError:
        return ""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a scan's folder and its subfolders."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
