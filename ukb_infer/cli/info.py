"""``ukb-infer info``."""

from __future__ import annotations

import typer


def info() -> None:
    """Show versions, the device and the modules found.

    Example:
        ukb-infer info
    """
    from ukb_infer.inference.system import system_facts

    for name, value in system_facts().items():
        typer.echo(f"{name:12} {value}")
