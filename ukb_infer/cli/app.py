"""The Typer application and its entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ukb_infer._version import __version__
from ukb_infer.cli import (
    adapt,
    associate,
    bench,
    benchmark,
    calibrate,
    changes,
    cross_validate,
    dataset,
    demo,
    embed,
    evaluate,
    explain,
    export,
    gwas_combine,
    gwas_inputs,
    info,
    merge,
    modules,
    phantom,
    predict,
    pretrain,
    probe,
    project,
    report,
    retry,
    status,
    stitch,
    summary,
    targets,
    train,
    volumetry,
    zscores,
)
from ukb_infer.cli.common import Command, report_error, report_lost_output, report_system_error
from ukb_infer.console import demand_output, lost_output, prepare_streams
from ukb_infer.errors import UkbInferError

app = typer.Typer(
    name="ukb-infer",
    help=(
        "Estimates with prediction intervals from UK Biobank neck-to-knee Dixon MRI.\n\n"
        "Start with `ukb-infer demo`, which needs no data. With your scans:\n\n"
        "    ukb-infer predict /data/20201 --out run --modules my-module"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


#: Commands whose result is their output on stdout; the others write files.
_PRINTING = ("targets", "modules", "info", "status")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"ukb-infer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Estimates with prediction intervals from UK Biobank neck-to-knee Dixon MRI."""
    if context.invoked_subcommand in _PRINTING:
        demand_output()


#: Every command with its function, in the order of ``--help``; `modules` and `benchmark` have subcommands.
COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        predict.predict, project.project, stitch.stitch, volumetry.volumetry, targets.targets, phantom.phantom,
        demo.demo, info.info, bench.bench, status.status, retry.retry, merge.merge, export.export, train.train,
        cross_validate.cross_validate, calibrate.calibrate, evaluate.evaluate, report.report, explain.explain,
        dataset.dataset, pretrain.pretrain, embed.embed, adapt.adapt, probe.probe, associate.associate,
        gwas_inputs.gwas_inputs, gwas_combine.gwas_combine, zscores.zscores,
        changes.changes, summary.summary,
    )
}  # fmt: skip
for _name, _function in COMMANDS.items():
    app.command(_name, cls=Command)(_function)
app.add_typer(modules.app, name="modules")
app.add_typer(benchmark.app, name="benchmark")


def main() -> None:
    """Run the command line; errors become one sentence and an exit code."""
    prepare_streams()
    code = _run()
    lost = lost_output()
    if lost is not None and code == 0:
        code = report_lost_output(lost)
    sys.exit(code)


def _run() -> int | str | None:
    """Run the command; returns the exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code or 0
    except UkbInferError as error:
        return report_error(error)
    except OSError as error:
        if error.errno is None:
            raise
        return report_system_error(error)
    return 0
