"""``ukb-infer modules``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, epidemiology_options, options
from ukb_infer.cli.common import Command
from ukb_infer.cli.show import table

app = typer.Typer(help="List, show, import and verify modules.", no_args_is_help=True, rich_markup_mode=None)


Name = Annotated[str, typer.Argument(help="Name or folder of a module.", autocompletion=completion.modules)]


@app.command("list", cls=Command)
def list_() -> None:
    """List the modules that `predict --modules` accepts by name.

    Example:
        UKB_INFER_MODULES=/opt/modules ukb-infer modules list
    """
    from ukb_infer.errors import ModuleError
    from ukb_infer.modules import list_modules, read_manifest

    rows, plain = [], []
    for folder in list_modules():
        try:
            m = read_manifest(folder)
        except ModuleError as error:
            rows.append((folder.name, "", "", "", "", f"cannot be read: {error}"))
            plain.append(f"{folder.name}: cannot be read: {error}")
            continue
        targets, members = str(len(m.targets)), str(len(m.members))
        rows.append((folder.name, m.version, targets, members, m.network.encoder, m.warning))
        warning = f"  [{m.warning}]" if m.warning else ""
        plain.append(f"{folder.name}  {m.version}  {targets} targets, {members} members, {m.network.encoder}{warning}")
    table(("module", "version", ">targets", ">members", "encoder", "note"), rows, plain)


@app.command(cls=Command)
def show(name: Name) -> None:
    """Show a module's properties and targets.

    Example:
        ukb-infer modules show phantom-demo
    """
    from ukb_infer.modules import find_module, read_manifest
    from ukb_infer.modules.visits import described_visits

    m = read_manifest(folder := find_module(name))
    for label, value in (
        ("name", f"{m.name} {m.version}"),
        ("folder", folder),
        ("warning", m.warning),
        ("intended use", m.intended_use),
        ("provenance", m.provenance),
        ("licence", m.licence),
        ("input", m.input.form.name),
        ("backbone", m.network.encoder),
        ("members", len(m.members)),
        ("outliers", m.outputs.outliers.fitted_on if m.outputs.outliers else "not available"),
        ("visits", described_visits(folder, m.made_by)),
        ("hash", m.hash),
    ):
        typer.echo(f"{label:13} {value}")
    typer.echo(f"\n{'target':36} {'field':6} {'unit':24} calibration")
    for t in m.targets:
        typer.echo(f"{t.name:36} {t.field:6} {t.unit:24} {t.calibration.summary}")


@app.command("import-mimir", cls=Command)
def import_mimir(
    folder: Annotated[Path, typer.Argument(help="Folder of a published module, with snapshot.pth.tar.")],
    out: Annotated[Path, typer.Option(help="Folder for the new module.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing module.")] = False,
) -> None:
    """Convert a published MIMIR module without executing anything in its pickle.

    Example:
        ukb-infer modules import-mimir downloads/module_organs --out modules/organs
    """
    from ukb_infer.modules import import_mimir as convert

    manifest = convert(folder, out, overwrite=overwrite)
    typer.echo(f"{out}: {len(manifest.targets)} targets: {', '.join(manifest.target_names)}")


@app.command("fit-outliers", cls=Command)
def fit_outliers(
    name: Name,
    data: Annotated[
        Path,
        typer.Option(
            "--projections",
            "--data",
            metavar="FOLDER",
            help="Projections of ordinary scans, or for a module of heads sessions of ordinary ones; no labels needed.",
        ),
    ],
    device: options.Device = "auto",
) -> None:
    """Teach a module what ordinary scans look like, so that `predict` can flag others.

    Writes a reference of the networks' features into the module's folder. Estimates and intervals do not change. Best
    use some hundred scans from the same scanners as the scans to come, none of which the module was trained on; at
    least 40. `train` does this with its own scans, and `adapt` where it has 40 cases.

    Example:
        ukb-infer project /data/20201 --out projections

        ukb-infer modules fit-outliers my-module --projections projections

        ukb-infer modules fit-outliers meningioma --data heads
    """
    from ukb_infer.cli.common import ProgressDisplay
    from ukb_infer.training.fit_outliers import run_fit_outliers

    with ProgressDisplay("fit-outliers") as progress:
        for line in run_fit_outliers(name, data, device, progress):
            typer.echo(line)


@app.command("fit-visits", cls=Command)
def fit_visits(
    name: Name,
    run: Annotated[Path, typer.Option(metavar="RUN", help="Run of this module with imaging visits 2 and 3.")],
    labels: Annotated[Path, typer.Option(metavar="FILE", help="Measurements at both visits of some participants.")],
    quality: epidemiology_options.QualityOf = "use",
) -> None:
    """Teach a module how its errors at two visits go together, so that `changes` knows how wide intervals are.

    Writes visits.json into the module's folder. The labels are of at least 20 participants whom the module never saw;
    from 100 on they also give the widths of intervals. Estimates do not change. After `calibrate`, fit again.

    Example:
        ukb-infer predict /data/20201 --out run --modules my-module

        ukb-infer modules fit-visits my-module --run run --labels both_visits.csv
    """
    from ukb_infer.epidemiology.changes import run_fit_visits

    checked = epidemiology_options.checked_quality(quality)
    typer.echo(f"  {run_fit_visits(name, run, labels, checked, lambda line: typer.echo(line, err=True))}")


@app.command(cls=Command)
def verify(name: Name) -> None:
    """Check that a module is complete and unchanged; exit code 1 if it is not.

    Example:
        ukb-infer modules verify phantom-demo
    """
    from ukb_infer.modules import find_module, verify_module

    folder = find_module(name)
    problems = verify_module(folder)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{folder}: complete; every weight file matches the SHA-256 in the manifest")
