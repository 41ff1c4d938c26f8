"""``ukb-infer benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion, options, show
from ukb_infer.cli.common import Command
from ukb_infer.cli.options import split_names

app = typer.Typer(help="Suites of tasks: score, rank, run containers.", no_args_is_help=True, rich_markup_mode=None)

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the tables.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the bootstrap.")]


@app.command(cls=Command)
def predict(
    module: Annotated[str, typer.Option(metavar="MODULE", help="Name or folder.", autocompletion=completion.modules)],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Cases: preprocessed/<sub>/ses_1/*.nii.gz, BIDS, or projections.")
    ],
    out: Annotated[Path, typer.Option(metavar="PRED", help="Folder for <sub>.txt or <sub>.nii.gz.")],
    device: options.Device = "auto",
) -> None:
    """Apply a module to every case of a suite.

    Writes the files that `score` reads, and predicted.csv with what failed; exit code 3 if anything did. Of a
    pretrained encoder these are embeddings, <sub>.npy, which `ukb-infer probe` reads.

    Example:
        ukb-infer benchmark predict --module modules/infarct --data cases --out outputs
    """
    from ukb_infer.cli.common import ProgressDisplay

    with ProgressDisplay("predict", "case") as progress:
        from ukb_infer.tasks.predict import run_benchmark_predict

        report = run_benchmark_predict(module, data, out, device=device, progress=progress)
    failed = [case for case in report.cases if case.path is None]
    for case in failed:
        typer.echo(f"  {case.name}: {case.code}: {case.message}")
    typer.echo(f"{len(report.cases) - len(failed)} ok, {len(failed)} failed")
    for path in report.files:
        typer.echo(f"  {path}")
    raise typer.Exit(report.exit_code)


@app.command(cls=Command)
def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PRED", help="Folder of any system's outputs: <sub>.txt or <sub>.nii.gz.")
    ],
    labels: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Labels: labels/<sub>/[ses_1/]{label.txt,seg.nii.gz}; body: also a table."),
    ],
    out: Out,
    suite: Annotated[
        str, completion.choice("fomo25", "fomo26", "body", help="fomo25, fomo26 or body [default: that of --task].")
    ] = "",
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK|FILE.toml",
            help="Task, or your own [default: the only one of the suite that fits the labels].",
        ),
    ] = "",
    replicates: Annotated[
        int, typer.Option(metavar="N", help="Bootstrap replicates over participants; 0: none.")
    ] = 1000,
    seed: Seed = 0,
    both_empty: Annotated[
        float, typer.Option(metavar="X", help="Surface Dice of two empty masks: 0 as in FOMO26, or 1.")
    ] = 0.0,
) -> None:
    """Score outputs against labels with the metrics of a suite.

    Writes scores.csv (with 95 % bootstrap intervals over participants), cases.csv and, where participants.tsv lies
    beside the labels, groups.csv. A missing or unusable output counts as the worst: the wrong class, an error of 100,
    Dice 0.

    Example:
        ukb-infer benchmark score outputs --labels data --suite fomo25 --task fomo25-infarct --out scores
    """
    from ukb_infer.tasks.suites import ScoreConfig, run_score

    report = run_score(
        ScoreConfig(
            predictions=predictions,
            labels=labels,
            out=out,
            suite=suite,
            task=task,
            replicates=replicates,
            seed=seed,
            both_empty=both_empty,
        )
    )
    rows = [(s.task, s.metric, show.interval(s.value), f"{s.count}", f"{s.missing}") for s in report.scores]
    plain = [f"{name}  {metric} {value}  {n} cases, {gone} missing" for name, metric, value, n, gone in rows]
    show.table(("task", "metric", "value", ">cases", ">missing"), rows, plain)
    if report.unlabelled:
        typer.echo(f"{len(report.unlabelled)} outputs have no label: {', '.join(report.unlabelled[:8])}")
    for path in report.files:
        typer.echo(f"  {path}")


@app.command("run-container", cls=Command)
def run_container(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE_OR_COMMAND", help="Apptainer image (.sif), name of a Docker or Podman image, or a command."
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Cases: preprocessed/<sub>/ses_1/*.nii.gz.")],
    task: Annotated[str, typer.Option(metavar="NAME", help="Task of FOMO25 or FOMO26, e.g. fomo25-infarct.")],
    out: Annotated[Path, typer.Option(metavar="PRED", help="Folder for the outputs and faults.csv.")],
    limit_s: Annotated[float, typer.Option(metavar="S", help="Longest time of a case, s.")] = 120.0,
    engine: Annotated[
        str,
        completion.choice(
            "auto", "command", "apptainer", "singularity", "docker", "podman", help="What starts it [default: by name]."
        ),
    ] = "auto",
    gpu: Annotated[bool, typer.Option("--gpu", help="Give the container the GPU.")] = False,
) -> None:
    """Run a container or command on every case as the challenge does, and check every output.

    Each case sees only read-only copies of its images and an empty output folder. Only outputs that count stay in PRED;
    faults.csv says what is wrong with the others. Exit code 3 if any is.

    Example:
        ukb-infer benchmark run-container model.sif --data cases --task fomo25-infarct --out outputs
    """
    from ukb_infer.cli.common import ProgressDisplay
    from ukb_infer.tasks.containers import ContainerConfig
    from ukb_infer.tasks.containers import run_container as run

    config = ContainerConfig(image=image, data=data, task=task, out=out, limit_s=limit_s, engine=engine, gpu=gpu)
    with ProgressDisplay("run-container", "case") as progress:
        report = run(config, progress)
    rows = [
        (case.name, f"{case.seconds:.1f}", case.fault.value, case.fault.meaning, case.message)
        for case in report.cases
        if case.fault is not None
    ]
    if rows:
        titles = ("case", ">seconds", "fault", "meaning", "found")
        show.table(titles, rows, [f"  {name}: {fault}: {said}" for name, _, fault, _, said in rows])
    slowest = max((case.seconds for case in report.cases), default=0.0)
    typer.echo(f"{len(report.cases) - len(rows)} ok, {len(rows)} failed; slowest case {slowest:.1f} s")
    for path in report.files:
        typer.echo(f"  {path}")
    raise typer.Exit(report.exit_code)


@app.command(cls=Command)
def rank(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV: team, taskN_METRIC [, track, taskN_METRIC_lower and _upper].")
    ],
    out: Out,
    rules: Annotated[str, completion.choice("fomo25", "fomo26", help="fomo25 or fomo26 (weighted tasks).")] = "fomo25",
    bootstrap: Annotated[int, typer.Option(metavar="N", help="Replicates that show how stable places are.")] = 1000,
    seed: Seed = 0,
    without: Annotated[str, typer.Option(metavar="A,B,...", help="Teams to leave out.")] = "",
    ties: Annotated[
        str, completion.choice("average", "min", help="Equal results share their average rank, or the best of them.")
    ] = "average",
) -> None:
    """Rank submissions by the rules of FOMO25 or FOMO26.

    Writes ranking.csv (unrounded ranks) and stability.csv (places over the bootstrap). Teams are ranked within their
    track; rows named baseline_* are read and left out; empty cells count as one more than the valid submissions.

    Example:
        ukb-infer benchmark rank results.csv --out ranks
    """
    from ukb_infer.evaluation.ranking import run_rank

    result = run_rank(
        table,
        out,
        rules=rules,
        bootstrap=bootstrap,
        seed=seed,
        without=split_names(without),
        ties=ties,  # type: ignore[arg-type]
    )
    rows = [
        (str(r.place[k]), r.track, team, f"{r.overall[k]:.3f}", " ".join(f"{v:g}" for v in r.tasks[k]))
        for r in result.rankings
        for k, team in enumerate(r.teams)
    ]
    show.table((">place", "track", "team", ">overall", "tasks"), rows, ("  ".join(row) for row in rows))
    if result.baselines:
        typer.echo(f"not ranked: {', '.join(result.baselines)}")
    for path in result.files:
        typer.echo(f"  {path}")
