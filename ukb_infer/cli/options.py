"""Options of ``predict``, ``project`` and ``stitch``, some shared with other commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ukb_infer.cli import completion
from ukb_infer.cli.shared import After
from ukb_infer.imaging.recipes import RECIPES
from ukb_infer.imaging.volumes.names import CONTRASTS, SPACING_NAMES

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder written by predict, project or merge.")]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Worker processes [default: one per core].")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing-stations", help="Use and flag scans with missing stations.")
]
Expected = Annotated[int, typer.Option(metavar="N", help="Stations of the protocol; 0 accepts any number.")]
Lock = Annotated[
    str,
    completion.choice(
        "auto",
        "flock",
        "file",
        help="auto, flock, or file (for file systems whose locks do not work between machines).",
    ),
]
Swaps = Annotated[
    str,
    completion.choice(
        "flag", "correct", "ignore",
        help="Fat-water swaps: flag them; correct those that leave no doubt (tested on phantoms only); ignore.",
    ),
]  # fmt: skip
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")]
LogIds = Annotated[bool, typer.Option("--log-ids", help="Show scan names in messages and logs.")]


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Options of every command that reads scans into a run, and so measures their quality."""

    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Zips, folders of DICOM slices or NIfTI stations, projections (.npy), folders to search, or lists "
            "(.txt, .csv, .bulk) of paths, eids or `eid 20201_2_0` keys.",
        ),
    ]
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the results; an existing run is resumed.")]
    workers: Workers = None
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder in which keys and relative paths of lists are looked up; or a pattern like "
            "'/mnt/{eid:.2}/{scan}.zip', which lists no folder.",
        ),
    ] = None
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="List of eids or scans to leave out (w*.csv, or a table with a column eid); repeatable.",
        ),
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Treat every flag as a failure.")] = False
    allow_missing_stations: AllowMissing = False
    expected_stations: Expected = 6
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Time limit for reading and projecting one scan, s.")
    ] = 600.0
    quality: Annotated[
        Path | None, typer.Option("--quality", metavar="FILE", help="TOML file of limits on image quality.")
    ] = None
    require_quality: Annotated[
        Path | None,
        typer.Option("--require-quality", metavar="FILE", help="TOML file of quality flags that are failures."),
    ] = None
    swaps: Swaps = "flag"
    keep_uncorrected: Annotated[
        bool,
        typer.Option(
            "--keep-uncorrected",
            help="With --swaps correct, also keep what a scan was before (.uncorrected.npz; stitch: desc-uncorrected).",
        ),
    ] = False
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Process part I of N of the scans; use one --out per shard. slurm/N takes I from the Slurm job array.",
        ),
    ] = ""
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Project on a Dask cluster: tcp://host:8786, or a .toml file.")
    ] = ""
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Detect changed inputs by SHA-256 instead of size and time; reads every file."),
    ] = False
    lock: Lock = "auto"
    dry_run: DryRun = False
    overwrite: Overwrite = False
    log_ids: LogIds = False

    def settings(self) -> dict[str, Any]:
        """The options as arguments of the command's configuration."""
        from ukb_infer.inference.config import default_workers
        from ukb_infer.records import ReadingOptions

        given = dict(vars(self))
        reading = {name: given.pop(name) for name in ("expected_stations", "allow_missing_stations", "strict")}
        return given | {
            "inputs": tuple(self.inputs),
            "exclude": tuple(self.exclude or ()),
            "workers": default_workers() if self.workers is None else self.workers,
            "reading": ReadingOptions(**reading),
        }


# Only for predict.
Modules = Annotated[
    list[str] | None,
    After("out"),
    typer.Option(
        metavar="NAME",
        help="Module by name or path; repeatable [default: all in UKB_INFER_MODULES].",
        autocompletion=completion.modules,
    ),
]
Device = Annotated[str, completion.choice("auto", "cpu", "cuda", help="auto, cpu, cuda or cuda:N.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Scans per batch; 0: 8 on a CPU, 64 on CUDA.")]
Level = Annotated[
    float, After("workers"), typer.Option("--ci", metavar="LEVEL", help="Level of the prediction intervals, e.g. 0.95.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--targets", "--target", metavar="A,B,...", help="Targets to write [default: all of the modules]; repeatable.",
        autocompletion=completion.targets,
    ),
]  # fmt: skip
Projections = Annotated[
    Path | None, After("exclude"), typer.Option(metavar="FOLDER", help="Also keep the projections in this folder.")
]
Precision = Annotated[
    str,
    completion.choice(
        "auto", "fp32", "bf16", "fp16", help="auto, fp32, bf16 or fp16; auto is fp32 on a CPU, fp16 on CUDA."
    ),
]
Backend = Annotated[
    str,
    completion.choice(
        "auto",
        "torch",
        "openvino",
        help="torch or openvino (CPU only); auto uses OpenVINO where it is installed and faster.",
    ),
]
Uncertainty = Annotated[
    str, completion.choice("total", "full", help="total, or full to add the aleatoric and epistemic parts.")
]
PredictionSets = Annotated[
    bool,
    typer.Option(
        "--prediction-sets", help="For 0/1 targets, add the set of classes that cannot be ruled out at the --ci level."
    ),
]
OodThreshold = Annotated[
    float,
    typer.Option(
        "--ood-threshold", metavar="PERCENTILE",
        help="Flag scans more unusual to the networks than this share of ordinary scans, %; 100 flags none.",
    ),
]  # fmt: skip
Parquet = Annotated[bool, After("timeout_s"), typer.Option("--parquet", help="Also write the tables as Parquet.")]
Report = Annotated[
    bool, After("parquet"), typer.Option("--report", help="Also write report.html, the run as one page.")
]

# Only for project.
Recipe = Annotated[
    str,
    After("workers"),
    completion.choice(*RECIPES, metavar="|".join(RECIPES), help="How stations become a projection."),
]
Png = Annotated[bool, typer.Option("--png", help="Also write a picture of each projection.")]
Volumes = Annotated[bool, typer.Option("--volumes", hidden=True)]

# Only for stitch.
Contrasts = Annotated[
    str,
    After("out"),
    typer.Option(
        metavar=",".join(CONTRASTS),
        help="Contrasts to write, one file each; in and opposed are read only if named.",
        autocompletion=completion.contrasts,
    ),
]
Spacing = Annotated[
    str,
    completion.choice(
        *SPACING_NAMES,
        metavar="|".join((*SPACING_NAMES, "MM")),
        help="native: the stations' finest along each axis; recipe: 2.232 x 2.232 x 3 mm; a number: isotropic, mm.",
    ),
]


def split_names(given: str | list[str] | None) -> tuple[str, ...]:
    """Split ``A,B,...``, perhaps given several times, into different names."""
    texts = [given] if isinstance(given, str) else given or []
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))
