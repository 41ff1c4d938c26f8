"""Configuration of a run: frozen and validated."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from ukb_infer.errors import RunError, UsageError
from ukb_infer.execution import parse_shard, usable_cores
from ukb_infer.execution.lock import LockMode
from ukb_infer.imaging.recipes import DEFAULT_RECIPE, get_recipe
from ukb_infer.imaging.volumes.names import DEFAULT_CONTRASTS, DEFAULT_SPACING, check_contrasts, check_spacing_rule
from ukb_infer.records import ReadingOptions, SwapMode
from ukb_infer.storage import from_plain

if TYPE_CHECKING:  # with pydantic, which workers do without
    from ukb_infer.quality.limits import QualitySpec

DeviceName = str
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

#: Time limit for reading and projecting one scan, s.
DEFAULT_TIMEOUT_S = 600.0
#: Outlier percentile from which scans are flagged: one ordinary scan in 500.
DEFAULT_OOD_THRESHOLD = 99.8


def default_workers() -> int:
    """Default number of worker processes: one per core, at most 16."""
    return min(16, usable_cores())


@dataclass(frozen=True)
class CommonConfig:
    """Common configuration of ``project``, ``stitch`` and ``predict``.

    Attributes:
        inputs: paths as given; ``out``: folder of the run.
        root: folder in which listed keys and relative paths are looked up, or a pattern of paths with ``{scan}``.
        reading: how scans are read and checked.
        workers: processes; 0 works in this one.
        timeout_s: time limit for one scan.
        exclude: lists of scans or eids to leave out.
        overwrite: replace an existing run.
        dry_run: write nothing.
        log_ids: show scan names in logs.
        shard: part of the work, ``I/N`` or ``slurm/N``; "" for all.
        verify: detect changed inputs by SHA-256.
        scheduler: address of a Dask scheduler, or a TOML file for dask-jobqueue; "" for local processes.
        lock: how the folder is locked: auto, flock or file.
        quality: TOML file of limits on measures of quality; None for the defaults.
        require_quality: TOML file of quality flags that are failures.
        swaps: fat-water swaps are flagged, corrected or ignored.
        keep_uncorrected: also keep what is made of a scan as it was before its swaps were corrected.
        retry_waits_s: waits before storage failures are retried.
        base: folder that relative paths start from; ``Path()`` is the working directory.
    """

    inputs: tuple[str, ...]
    out: Path
    root: Path | None = None
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    workers: int = field(default_factory=default_workers)
    timeout_s: float = DEFAULT_TIMEOUT_S
    exclude: tuple[Path, ...] = ()
    overwrite: bool = False
    dry_run: bool = False
    log_ids: bool = False
    shard: str = ""
    verify: bool = False
    scheduler: str = ""
    lock: LockMode = "auto"
    quality: Path | None = None
    require_quality: Path | None = None
    swaps: SwapMode = "flag"
    keep_uncorrected: bool = False
    retry_waits_s: tuple[float, ...] = (2.0, 10.0, 30.0)
    base: Path = Path()

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("none given; name a zip, a folder, a projection or a list", field="inputs")
        if not 0 <= self.workers <= 256:
            raise UsageError(field="workers", got=self.workers, expected="0 to 256")
        if not self.timeout_s > 0:
            raise UsageError(field="timeout_s", got=self.timeout_s, expected="seconds above 0")
        check_reading(self.reading)
        check_swaps(self.swaps)
        if self.keep_uncorrected and self.swaps != "correct":
            raise UsageError("`keep_uncorrected` needs `swaps` correct; without it nothing is corrected")
        parse_shard(self.shard)
        if self.scheduler:  # its workers may have been started in another folder
            object.__setattr__(self, "base", self.base.absolute())
        if self.lock not in ("auto", "flock", "file"):
            raise UsageError(field="lock", got=self.lock, expected="auto, flock or file")

    def at(self, path: str | Path) -> Path:
        """Resolve a path of the configuration."""
        return self.base / path

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Folders that this run writes to."""
        return (self.out,)

    def quality_spec(self) -> QualitySpec:
        """How the quality of the scans is judged.

        Raises:
            UsageError: a file of limits that makes no sense.
        """
        from ukb_infer.quality.limits import read_spec

        given = (None if path is None else self.at(path) for path in (self.quality, self.require_quality))
        return read_spec(*given, strict=self.reading.strict)

    def base_identity(self, recipe: str) -> dict[str, Any]:
        """Settings that affect the results of all commands; the recipe is the given one, or the modules'."""
        shard = parse_shard(self.shard)
        corrected: dict[str, Any] = {"swaps": self.swaps} if self.swaps == "correct" else {}  # flags change no pixel
        corrected |= {"keep_uncorrected": True} if self.keep_uncorrected else {}
        return {"recipe": recipe, **asdict(self.reading), "shard": None if shard is None else str(shard)} | corrected

    def to_plain(self) -> dict[str, Any]:
        """All settings as JSON values; the shard as ``I/N``, which is valid outside the job array too."""
        plain = {k: _plain(v) for k, v in asdict(self).items() if k != "base"}
        shard = parse_shard(self.shard)
        return plain | {"shard": "" if shard is None else str(shard)}

    @classmethod
    def from_journal(cls, plain: dict[str, Any], base: Path = Path()) -> Self:
        """Inverse of :meth:`to_plain`.

        Args:
            plain: as stored in the journal.
            base: folder that the command was given in.

        Raises:
            RunError: it is damaged.
        """
        try:
            return from_plain(cls, plain | {"base": base})
        except ValueError as error:
            raise RunError(f"the command in the journal is damaged ({error}); run it by hand") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class ProjectConfig(CommonConfig):
    """Configuration of ``project``; attributes as in :class:`CommonConfig`, and:

    Attributes:
        recipe: of the projections.
        png: also write pictures; ``volumes``: of earlier versions, refused: ``stitch`` writes them.
    """

    recipe: str = DEFAULT_RECIPE
    png: bool = False
    volumes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        get_recipe(self.recipe)
        if self.volumes:
            raise UsageError(
                "fused volumes are written by a command of their own now: ukb-infer stitch INPUT... --out FOLDER",
                field="volumes",
            )

    def identity(self) -> dict[str, Any]:
        """Settings that affect the results."""
        return self.base_identity(self.recipe) | {"png": self.png, "volumes": False}


@dataclass(frozen=True)
class StitchConfig(CommonConfig):
    """Configuration of ``stitch``; attributes as in :class:`CommonConfig`, and:

    Attributes:
        contrasts: water, fat, in, opposed, fraction.
        spacing: native, recipe, or a number of mm.
    """

    contrasts: tuple[str, ...] = DEFAULT_CONTRASTS
    spacing: str = DEFAULT_SPACING

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "contrasts", check_contrasts(self.contrasts))
        object.__setattr__(self, "spacing", check_spacing_rule(self.spacing))

    def identity(self) -> dict[str, Any]:
        """Settings that affect the results."""
        base = {k: v for k, v in self.base_identity("").items() if k != "recipe"}
        return base | {"contrasts": ",".join(self.contrasts), "spacing": self.spacing}

    @property
    def finer_than_recipe(self) -> float:
        """Voxels per voxel of the recipe's grid, for estimates of size."""
        return 1.0 if self.spacing in ("native", "recipe") else 14.9 / float(self.spacing) ** 3


@dataclass(frozen=True)
class PredictConfig(CommonConfig):
    """Configuration of ``predict``; attributes as in :class:`CommonConfig`, and:

    Attributes:
        modules: names or folders; empty uses ``UKB_INFER_MODULES``.
        device: auto, cpu, cuda or cuda:N.
        batch_size: scans per batch, 0 for the device's default; batches are padded to it.
        level: of the intervals, in (0, 1).
        targets: names to write, empty for all of the modules.
        projections: folder of cached projections to write and use.
        precision: arithmetic of the networks.
        uncertainty: ``full`` also writes the aleatoric and epistemic parts.
        parquet: also write Parquet.
        prediction_sets: also write prediction sets of calibrated binary targets.
        backend: what runs the networks on a CPU; ``auto`` uses OpenVINO where it is installed and faster.
        ood_threshold: outlier percentile from which a scan is flagged; 100 flags none.
    """

    modules: tuple[str, ...] = ()
    device: DeviceName = "auto"
    batch_size: int = 0
    level: float = 0.95
    targets: tuple[str, ...] = ()
    projections: Path | None = None
    precision: PrecisionName = "auto"
    uncertainty: Literal["total", "full"] = "total"
    parquet: bool = False
    backend: Literal["auto", "torch", "openvino"] = "auto"
    prediction_sets: bool = False
    ood_threshold: float = DEFAULT_OOD_THRESHOLD

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Folders that this run writes to."""
        return (self.out,) if self.projections is None else (self.out, self.at(self.projections))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.level < 1.0:
            raise UsageError(field="level", got=self.level, expected="a level between 0 and 1, e.g. 0.95")
        if not 50.0 <= self.ood_threshold <= 100.0:
            raise UsageError(field="ood_threshold", got=self.ood_threshold, expected="a percentile from 50 to 100")
        if self.batch_size < 0 or self.batch_size > 4096:
            raise UsageError(field="batch_size", got=self.batch_size, expected="1 to 4096 (0 for the default)")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(field="device", got=self.device, expected="auto, cpu, cuda or cuda:N")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise UsageError(field="precision", got=self.precision, expected="auto, fp32, bf16 or fp16")
        if self.backend not in ("auto", "torch", "openvino"):
            raise UsageError(field="backend", got=self.backend, expected="auto, torch or openvino")
        if self.uncertainty not in ("total", "full"):
            raise UsageError(field="uncertainty", got=self.uncertainty, expected="total or full")
        if self.precision == "fp16" and self.device == "cpu":
            raise UsageError("`precision` fp16 needs `device` cuda; use fp32 or bf16 on a CPU")
        if self.projections is not None and os.path.realpath(self.at(self.projections)) == os.path.realpath(self.out):
            raise UsageError("`projections` and `out` are the same folder; use different ones")

    @property
    def level_name(self) -> str:
        """The level in column names: ``ci95``, ``ci99.9``."""
        return f"ci{round(100.0 * self.level, 6):g}"


def check_swaps(swaps: str) -> None:
    """Check what is to be done about fat-water swaps.

    Raises:
        UsageError: names the option.
    """
    if swaps not in get_args(SwapMode):
        raise UsageError(field="swaps", got=swaps, expected="flag, correct or ignore")


def check_reading(reading: ReadingOptions) -> None:
    """Check how scans are to be read.

    Raises:
        UsageError: names the option.
    """
    if not 0 <= reading.expected_stations <= 20:
        raise UsageError(field="expected_stations", got=reading.expected_stations, expected="0 (any) to 20")
    if reading.expected_stations == 0 and reading.allow_missing_stations:
        raise UsageError(
            "`allow_missing_stations` is useless with `expected_stations` 0, which accepts any number; drop one of them"
        )
