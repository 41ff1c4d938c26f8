"""``report``: a run as one page that opens without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ukb_infer._version import __version__
from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation import compare, read_predictions
from ukb_infer.labels import Labels, parse_column, read_definitions, read_labels
from ukb_infer.labels.tables import read_table
from ukb_infer.protocol import PROTOCOL
from ukb_infer.report import cohort
from ukb_infer.report.contents import Column, Rows, is_fine, make_columns, make_rows
from ukb_infer.report.html import page_pieces
from ukb_infer.report.packing import Packed, pack_words
from ukb_infer.report.pictures import CHANNELS, MOST_IN_PAGE, SHEET, SaliencyMap, Sheet, draw_sheets, read_maps, side_of
from ukb_infer.runs import Run, RunScan, read_run
from ukb_infer.storage import atomic_path, atomic_write_bytes
from ukb_infer.targets import TARGETS

#: What participants are known by.
PHENOTYPES = ("sex", "age")
#: Files of the folder beside a page of many scans.
SHEET_NAME = "sheet-{}.jpg"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to show.

    Attributes:
        run: folder of ``predict``, ``project`` or ``merge``.
        out: the page.
        labels: table of labels, for agreement and calibration.
        phenotypes: table with sex (field 31), age (21003) or both.
        projections: folder of the projections, for pictures; None for those in the run or that the run read.
        saliency: folder of ``explain``, for saliency maps.
        units, define: of the labels, as for training.
        anonymous: leave out names, paths and messages; shuffle the scans.
    """

    run: Path
    out: Path
    labels: Path | None = None
    phenotypes: Path | None = None
    projections: Path | None = None
    saliency: Path | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    define: Path | None = None
    anonymous: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """The page, its size in bytes, and the folder of pictures beside it, if any."""

    page: Path
    size: int
    pictures: Path | None = None


def run_report(config: ReportConfig, say: Callable[[str], None] = print) -> ReportResult:
    """Write the report of a run.

    Args:
        config: what to show.
        say: receives notes.

    Raises:
        RunError: the folder has no tables, or the page cannot be written.
        UsageError: unusable labels, phenotypes or projections.
    """
    run = read_run(config.run)
    if not run.scans:
        raise RunError(f"{config.run} has no scans in its scans.csv; expected a folder written by predict or project")
    labels = _read_labels(config, run)
    rows = make_rows(run, labels, read_phenotypes(config.phenotypes), anonymous=config.anonymous)
    folder = config.out.with_name(f"{config.out.stem}_files")
    projections = _projections(config, rows)
    beside = folder if projections and rows.count > MOST_IN_PAGE else None
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(SHEET_NAME.format("*")):
            old.unlink()
        sheets = _sheets(projections, beside)
        columns = [*make_columns(rows), *([_presence(sheets)] if sheets else [])]
        head = _head(config, rows, columns, labels) | {"folder": "" if beside is None else beside.name}
        maps = _maps(config, rows)
        head["saliency"] = [[m.row, m.target] for m in maps]
        blobs = _blobs(columns, sheets if beside is None else [], maps)
        with atomic_path(config.out) as partial, partial.open("w", encoding="ascii", errors="xmlcharrefreplace") as to:
            to.writelines(page_pieces(head["title"], head, blobs))
    except OSError as error:
        raise RunError(f"`out` {config.out} cannot be written ({error.strerror}); choose another place") from error
    if labels is not None and head["agreement"]["missing"]:
        say(f"not predicted by the run: {', '.join(head['agreement']['missing'])}")
    return ReportResult(page=config.out, size=config.out.stat().st_size, pictures=beside)


def _read_labels(config: ReportConfig, run: Run) -> Labels | None:
    if config.labels is None:
        return None
    run.estimated  # noqa: B018  (raises where the run has none)
    definitions = read_definitions(config.define) if config.define else {}
    return read_labels(config.labels, units=config.units, definitions=definitions)


def read_phenotypes(path: Path | None) -> Labels | None:
    """Sex and age, whichever a table has; None without a table.

    Raises:
        UsageError: it has neither.
    """
    if path is None:
        return None
    known = {name: TARGETS[name] for name in PHENOTYPES}
    columns = [parse_column(str(c), known) for c in read_table(path, f"`phenotypes` {path}").frame.columns]
    present = {column.target for column in columns if column is not None}
    if not present:
        raise UsageError(f"{path} has neither sex (p31) nor age (p21003_i2)", field="phenotypes")
    return read_labels(path, [name for name in PHENOTYPES if name in present])


def _projections(config: ReportConfig, rows: Rows) -> list[Path | None]:
    """(N,) the projection of each scan, where there is one; empty if there is none at all.

    Raises:
        UsageError: the folder named for them is none.
    """
    if config.projections is not None and not config.projections.is_dir():
        raise UsageError(f"{config.projections} is not a folder; expected one with projections", field="projections")
    folders = [folder for folder in (config.projections, config.run) if folder is not None]
    found = [_projection_of(rows.run.scans[k], folders) for k in rows.order]
    return found if any(found) else []


def _projection_of(scan: RunScan, folders: Sequence[Path]) -> Path | None:
    candidates = [folder / f"{scan.key.scan}.npy" for folder in folders if scan.key.is_safe]
    if scan.given.endswith(".npy"):
        candidates.append(Path(scan.given))
    return next((path for path in candidates if path.is_file()), None)


def _sheets(projections: list[Path | None], folder: Path | None) -> list[Sheet]:
    """Sheets of pictures; with a folder they are written there, and only who has one is kept."""
    sheets = []
    for number, sheet in enumerate(draw_sheets(projections)):
        if folder is not None:
            folder.mkdir(exist_ok=True)
            atomic_write_bytes(folder / SHEET_NAME.format(f"{number:05d}"), sheet.jpeg)
        sheets.append(sheet if folder is None else Sheet(jpeg=b"", present=sheet.present))
    return sheets


def _presence(sheets: list[Sheet]) -> Column:
    present = np.concatenate([sheet.present for sheet in sheets])
    words = np.where(present, "yes", "no").tolist()
    return Column(name="picture", title="Picture", packed=pack_words(words))


def _maps(config: ReportConfig, rows: Rows) -> list[SaliencyMap]:
    if config.saliency is None:
        return []
    targets = [target.name for target in rows.run.estimated[1].targets]
    return read_maps(config.saliency, [rows.run.scans[k].key.scan for k in rows.order], targets)


def _blobs(columns: list[Column], sheets: list[Sheet], maps: list[SaliencyMap]) -> Iterator[tuple[str, bytes]]:
    for column in columns:
        yield f"c-{column.name}", column.packed.data
    for number, sheet in enumerate(sheets):
        yield f"sheet-{number}", sheet.jpeg
    for number, saliency in enumerate(maps):
        yield f"map-{number}", saliency.jpeg


def _facts(column: Column) -> dict[str, Any]:
    packed: Packed = column.packed
    said: dict[str, Any] = {"name": column.name, "title": column.title, "unit": column.unit, "about": column.about}
    said |= {"size": packed.size, **packed.facts}
    return said | ({"histogram": column.histogram} if column.histogram else {})


def _head(config: ReportConfig, rows: Rows, columns: list[Column], labels: Labels | None) -> dict[str, Any]:
    """What the page says of the run, all numbers aggregated."""
    run = rows.run
    name = "" if rows.anonymous else config.run.resolve().name
    configuration = {} if run.facts is None else run.facts.configuration
    head: dict[str, Any] = {
        "title": f"Report of {name}" if name else "Report",
        "key": _key_of(rows, columns),
        "version": __version__,
        "rows": rows.count,
        "fine": is_fine(rows),
        "anonymous": rows.anonymous,
        "sexFrom": rows.sex_from,
        "counts": cohort.count_scans(run),
        "limits": cohort.limits_of(run),
        "targets": cohort.describe_targets(rows),
        "visits": cohort.compare_visits(run),
        "oodThreshold": configuration.get("ood_threshold"),
        "protocol": [{"slices": p.slices, "mm": p.slice_spacing_mm, "name": p.description} for p in PROTOCOL],
        "pictures": {"side": side_of(rows.count), "columns": SHEET[0], "rows": SHEET[1],
                     "channels": list(CHANNELS)},
        "columns": [_facts(column) for column in columns],
    }  # fmt: skip
    if run.facts is not None:
        modules = [{k: str(m.get(k, "")) for k in ("name", "version", "sha256")} for m in run.facts.modules]
        head |= {"level": run.facts.level, "warning": run.facts.warning, "modules": modules}
    if labels is not None:
        comparison = compare(read_predictions(config.run), labels, replicates=0)
        head["agreement"] = cohort.describe_agreement(comparison, rows)
    return head


def _key_of(rows: Rows, columns: list[Column]) -> str:
    """What ratings in a browser's storage belong to: these scans with these results."""
    digest = hashlib.sha256()
    for column in columns[:4]:
        digest.update(column.packed.data)
    return digest.hexdigest()[:16]
