"""The command line: one file per command, no logic, heavy imports inside the commands."""

from __future__ import annotations

from ukb_infer.cli.app import main

__all__ = ["main"]
