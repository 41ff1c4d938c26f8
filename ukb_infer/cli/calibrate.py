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
        list[Path], typer.Argument(metavar="CV...", help="Folders of `cross-validate`; several with --combine.")
    ],
    modules: Annotated[
        list[str], typer.Option("--module", metavar="MODULE", help="Module to calibrate; several with --combine.")
    ],
    combine: Annotated[
        bool,
        typer.Option("--combine", help="Fit one interval of several modules that predict the same targets, together."),
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            help="conformal, or a variance factor: coverage (published matching) or closed-form (minimal NLL)."
        ),
    ] = "conformal",
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="NAME",
            help="Calibrate although cross-validated networks and module differ in this setting; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and print, but write nothing.")] = False,
) -> None:
    """Fit a module's intervals on out-of-fold predictions and write them into its manifest.

    The predictions must come from networks made as the module's were: the same settings, labels and number of networks
    a scan. Every difference is refused by name, unless --accept names it. Binary targets get a calibrated probability.

    Several modules with a target in common: calibrate each, then all together with --combine, folders and modules in
    the same order. `predict` finds the result beside the modules. Without it, their intervals are too wide.

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
            f"got {len(folders)} folders and {len(modules)} modules: calibrate one with one, or several together with "
            "--combine"
        )
    typer.echo(_table(fitted))
    done = f"calibrated {'together ' if combine else ''}by {method}"
    typer.echo("nothing was written (--dry-run)" if dry_run else f"{', '.join(modules)}: {done}")


def _table(fitted: Sequence[CalibratedTarget]) -> str:
    """One line a target."""
    width = max(6, *(len(f.name) for f in fitted))
    lines = [f"{'target':<{width}}  labels  variance factor  95 % half width (sd)"]
    for f in fitted:
        factor, half = f"{f.factor:.3f}", "-" if f.half_width95 != f.half_width95 else f"{f.half_width95:.2f}"
        if f.binary:
            factor, half = "-", "none" if f.problem else "probability"
        lines.append(f"{f.name:<{width}}  {f.labels:>6}  {factor:>15}  {half:>20}")
    return "\n".join(lines)
