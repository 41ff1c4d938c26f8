"""Options that several commands have, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Zips, folders of DICOM slices or NIfTI stations, projections (.npy), folders to search, or lists "
        "(.txt, .csv, .bulk) of paths or `eid 20201_2_0` keys.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Folder of the results; an existing run is continued.")
]
Root = Annotated[
    Path | None, typer.Option("--root", metavar="FOLDER", help="Where keys and relative paths of lists are looked up.")
]
Workers = Annotated[int | None, typer.Option("--workers", metavar="N", help="Worker processes [default: one a core].")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", help="Longest time for reading one scan, seconds.")]
Exclude = Annotated[
    list[Path] | None,
    typer.Option("--exclude", metavar="FILE", help="List of eids or scans to leave out (w*.csv); may be repeated."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Treat every flag as a failure.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing-stations", help="Use and flag scans that lack stations.")]
Expected = Annotated[
    int, typer.Option("--expected-stations", metavar="N", help="Stations of the protocol; 0 accepts any number.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again where the folder holds a run.")]
Shard = Annotated[
    str,
    typer.Option(
        "--shard", metavar="I/N", help="Part I of N of the scans, with an --out of its own; slurm: from the job array."
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Notice changed inputs by SHA-256 instead of size and time; reads everything.")
]
Scheduler = Annotated[
    str,
    typer.Option("--scheduler", metavar="ADDRESS", help="Project on a Dask cluster: tcp://host:8786, or a .toml file."),
]
Lock = Annotated[
    str, typer.Option("--lock", help="auto, flock, or file (network file systems whose locks do not work).")
]
LogIds = Annotated[bool, typer.Option("--log-ids", help="Let names of scans appear in messages and logs.")]
