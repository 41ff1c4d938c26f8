"""``ukb-infer calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ukb_infer.cli import completion
from ukb_infer.cli.options import split_names
from ukb_infer.cli.training_options import Define, Units, parse_units
from ukb_infer.errors import UsageError

if TYPE_CHECKING:
    from ukb_infer.training.calibrate import CalibratedTarget


Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...", help="Written by `cross-validate` (several with --combine), or by `predict` with --labels."
    ),
]
Modules = Annotated[
    list[str], typer.Option("--module", metavar="MODULE", help="Module to calibrate; several with --combine.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Labels of a run's scans, to calibrate again where the module is used: a table, or for heads a folder of "
        "cases with labels.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(metavar="MODULE", help="With --labels: write a new module [default: in place].")
]
Targets = Annotated[
    str,
    typer.Option(
        metavar="A,B,...",
        help="With --labels: targets [default: all in the labels].",
        autocompletion=completion.targets,
    ),
]
Combine = Annotated[
    bool, typer.Option("--combine", help="Fit joint intervals for several modules that predict the same targets.")
]
Method = Annotated[
    str, typer.Option(help="conformal, or a variance factor: coverage (as published) or closed-form (minimal NLL).")
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="NAME",
        help="Accept that the cross-validated networks differ from the module in this setting; repeatable.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Fit and print, but write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing module in --out.")]


def calibrate(
    folders: Folders,
    modules: Modules,
    labels: Labels = None,
    out: Out = None,
    targets: Targets = "",
    units: Units = None,
    define: Define = None,
    combine: Combine = False,
    method: Method = "conformal",
    accept: Accept = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Calibrate a module's intervals and probabilities.

    Fits them on out-of-fold predictions and writes them into the manifest. The predictions must come from networks made
    like the module's: same settings, labels and number of networks per scan. Any difference is refused unless --accept
    names it. Binary targets get a calibrated probability.

    At another site the intervals of a module may be too narrow. There, predict some scans that you have labels for and
    that the module did not learn from (50 are enough for 95 % intervals, 19 the fewest), and fit again on them with
    --labels: bodies and heads, volumes of outlined lesions too. Means and weights stay.

    If several modules predict the same target, calibrate each, then all of them with --combine, giving folders and
    modules in the same order; `predict` then uses the joint interval. Otherwise their intervals are too wide.

    Example:
        ukb-infer calibrate cv --module my-module

        ukb-infer calibrate run --module my-module --labels local.csv --out my-module-here

        ukb-infer calibrate cv-a cv-b --combine --module module-a --module module-b
    """
    if not combine and not len(folders) == len(modules) == 1:
        raise UsageError(
            f"got {len(folders)} folders and {len(modules)} modules, expected one of each; for several add --combine"
        )
    only_labels = {"out": out, "targets": targets, "unit": units, "define": define, "overwrite": overwrite}
    if given := [name for name, value in only_labels.items() if value and labels is None]:
        raise UsageError(f"--{given[0]} is for calibrating on the labels of a run; add --labels")
    if labels is not None and (combine or accept):
        raise UsageError("--combine and --accept are for folders of `cross-validate`; leave them out with --labels")
    settings = {"method": method, "dry_run": dry_run}
    if labels is None:
        fitted = _on_left_out(folders, modules, combine=combine, accept=accept or (), **settings)
    else:
        fitted = _on_labels(
            run=folders[0], module=modules[0], labels=labels, out=out, targets=split_names(targets),
            units=parse_units(units or []), define=define, overwrite=overwrite, **settings,
        )  # fmt: skip
    typer.echo(_table(fitted))
    done = f"calibrated {'together ' if combine else ''}by {method}"
    written = ", ".join(modules) if out is None else str(out)
    typer.echo("nothing was written (--dry-run)" if dry_run else f"{written}: {done}")


def _tell(line: str) -> None:
    typer.echo(line, err=line.startswith("WARNING"))


def _on_left_out(folders: list[Path], modules: list[str], *, combine: bool, **settings: Any) -> list[CalibratedTarget]:
    """Calibrate on folders of cross-validate."""
    from ukb_infer.training.calibrate import run_calibrate, run_combine

    if combine:
        return run_combine(folders, modules, say=_tell, **settings)
    return run_calibrate(folders[0], modules[0], say=_tell, **settings)


def _on_labels(**settings: Any) -> list[CalibratedTarget]:
    """Calibrate on a labelled run."""
    from ukb_infer.training.recalibrate import RecalibrateConfig, run_recalibrate

    return run_recalibrate(RecalibrateConfig(**settings), _tell)


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
