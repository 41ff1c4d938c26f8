"""The Typer application and its entry point."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ukb_infer._version import __version__
from ukb_infer.cli import (
    bench,
    calibrate,
    cross_validate,
    demo,
    evaluate,
    info,
    modules,
    phantom,
    predict,
    project,
    runs,
    targets,
    train,
)
from ukb_infer.cli.common import report_error, report_system_error
from ukb_infer.errors import UkbInferError

app = typer.Typer(
    name="ukb-infer",
    help=(
        "Estimates with prediction intervals from UK Biobank neck-to-knee Dixon MRI.\n\n"
        "Start with `ukb-infer demo`, which needs no data. On scans:\n\n"
        "    ukb-infer predict /data/20201 --out run --modules my-module"
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"ukb-infer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Estimates with prediction intervals from UK Biobank neck-to-knee Dixon MRI."""


app.command("predict")(predict.predict)
app.command("project")(project.project)
app.command("targets")(targets.targets)
app.add_typer(modules.app, name="modules")
app.command("phantom")(phantom.phantom)
app.command("demo")(demo.demo)
app.command("info")(info.info)
app.command("bench")(bench.bench)
app.command("status")(runs.status)
app.command("retry")(runs.retry)
app.command("merge")(runs.merge)
app.command("export")(runs.export)
app.command("train")(train.train)
app.command("cross-validate")(cross_validate.cross_validate)
app.command("calibrate")(calibrate.calibrate)
app.command("evaluate")(evaluate.evaluate)


def main() -> None:
    """Run the command line; errors become one sentence and an exit code."""
    try:
        app()
    except UkbInferError as error:
        sys.exit(report_error(error))
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(report_system_error(error))
    except KeyboardInterrupt:
        typer.echo("\nInterrupted; run the same command again to continue.", err=True)
        sys.exit(130)
