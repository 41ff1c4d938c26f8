"""``ukb-infer calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ukb_infer.training.calibrate import CalibratedTarget


def calibrate(
    folders: Annotated[
        list[Path], typer.Argument(metavar="CV...", help="Folders written by `cross-validate`; several with --combine.")
    ],
    modules: Annotated[
        list[str], typer.Option("--module", metavar="MODULE", help="Module to calibrate; several with --combine.")
    ],
    combine: Annotated[
        bool, typer.Option("--combine", help="Fit joint intervals for several modules that predict the same targets.")
    ] = False,
    method: Annotated[
        str, typer.Option(help="conformal, or a variance factor: coverage (as published) or closed-form (minimal NLL).")
    ] = "conformal",
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="NAME",
            help="Accept that the cross-validated networks differ from the module in this setting; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and print, but write nothing.")] = False,
) -> None:
    """Calibrate a module's intervals.

    Fits them on out-of-fold predictions and writes them into the manifest. The predictions must come from networks made
    like the module's: same settings, labels and number of networks per scan. Any difference is refused unless --accept
    names it. Binary targets get a calibrated probability.

    If several modules predict the same target, calibrate each, then all of them with --combine, giving folders and
    modules in the same order; `predict` then uses the joint interval. Otherwise their intervals are too wide.

    Example:
        ukb-infer calibrate cv --module my-module

        ukb-infer calibrate cv-a cv-b --combine --module module-a --module module-b
    """
    from ukb_infer.errors import UsageError
    from ukb_infer.training.calibrate import run_calibrate, run_combine

    def tell(line: str) -> None:
        typer.echo(line, err=line.startswith("WARNING"))

    if combine:
        fitted = run_combine(folders, modules, method=method, accept=accept or (), dry_run=dry_run, say=tell)
    elif len(folders) == len(modules) == 1:
        fitted = run_calibrate(folders[0], modules[0], method=method, accept=accept or (), dry_run=dry_run, say=tell)
    else:
        raise UsageError(
            f"got {len(folders)} folders and {len(modules)} modules, expected one of each; for several add --combine"
        )
    typer.echo(_table(fitted))
    done = f"calibrated {'together ' if combine else ''}by {method}"
    typer.echo("nothing was written (--dry-run)" if dry_run else f"{', '.join(modules)}: {done}")


def _table(fitted: Sequence[CalibratedTarget]) -> str:
    """One line per target."""
    width = max(6, *(len(f.name) for f in fitted))
    lines = [f"{'target':<{width}}  labels  variance factor  95 % half width (sd)"]
    for f in fitted:
        factor, half = f"{f.factor:.3f}", "-" if f.half_width95 != f.half_width95 else f"{f.half_width95:.2f}"
        if f.binary:
            factor, half = "-", "none" if f.problem else "probability"
        lines.append(f"{f.name:<{width}}  {f.labels:>6}  {factor:>15}  {half:>20}")
    return "\n".join(lines)
