"""``report``: a run as one page that opens without a network."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from ukb_infer.report.contents import Column, Rows, has_all_labels, is_fine, make_columns, make_rows
from ukb_infer.report.html import check_name, write_page
from ukb_infer.report.packing import Packed, pack_words
from ukb_infer.report.pictures import CHANNELS, MOST_IN_PAGE, SHEET, SaliencyMap, Sheet, draw_sheets, read_maps, side_of
from ukb_infer.report.summary import holds_summary, write_summary_page
from ukb_infer.runs import Run, RunScan, read_run
from ukb_infer.storage import atomic_write_bytes
from ukb_infer.targets import TARGETS

#: What participants are known by.
PHENOTYPES = ("sex", "age")
#: Folders of pictures beside a page of many scans, and their files.
_PICTURES, SHEET_NAME = "pictures-", "sheet-{}.jpg"


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
        summary: without individual data; ``run`` may be a folder of ``summary``.
        min_count: with ``summary`` of a run: fewest people behind any number.
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
    summary: bool = False
    min_count: int | None = None

    def __post_init__(self) -> None:
        check_name(self.out)
        for name in ("labels", "projections", "saliency", "units", "define", "anonymous") if self.summary else ():
            if getattr(self, name):
                raise UsageError("not used with `summary`, which shows no single person; leave it out", field=name)
        if self.min_count is not None and not self.summary:
            raise UsageError("only used with `summary`", field="min_count")


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
    if config.summary:
        page = write_summary_page(config.run, config.out, config.phenotypes, config.min_count, say)
        return ReportResult(page=page, size=page.stat().st_size)
    if holds_summary(config.run):
        raise UsageError(f"{config.run} is a summary; show it with `summary`")
    _check_folders(config)
    say(f"reading {config.run}")
    run = read_run(config.run)
    if not run.scans:
        raise RunError(f"{config.run} has no scans in its scans.csv; expected a folder written by predict or project")
    labels = _read_labels(config, run)
    rows = make_rows(run, labels, read_phenotypes(config.phenotypes), anonymous=config.anonymous)
    projections = _projections(config, rows)
    with _pictures_beside(config.out, beside=bool(projections) and rows.count > MOST_IN_PAGE) as beside:
        sheets = _sheets(projections, beside)
        columns = [*make_columns(rows), *([_presence(sheets)] if sheets else [])]
        head = _head(config, rows, columns, labels)
        head["folder"] = "" if beside is None else f"{beside.parent.name}/{beside.name}"
        maps = _maps(config, rows)
        head["saliency"] = [[m.row, m.target] for m in maps]
        write_page(config.out, head["title"], head, _blobs(columns, sheets if beside is None else [], maps))
    if labels is not None and head["agreement"]["missing"]:
        say(f"not predicted by the run: {', '.join(head['agreement']['missing'])}")
    size = config.out.stat().st_size
    return ReportResult(page=config.out, size=size, pictures=None if beside is None else beside.parent)


@contextmanager
def _pictures_beside(out: Path, *, beside: bool) -> Iterator[Path | None]:
    """A new folder of pictures in the one beside a page; those of an earlier page go once the new page is there.

    Args:
        out: the page.
        beside: whether its pictures lie beside it; if not, None is yielded.

    Raises:
        RunError: it cannot be written.
    """
    folder = out.with_name(f"{out.stem}_files")
    old = [path for path in folder.glob(f"{_PICTURES}*") if path.is_dir()]
    sheets = list(folder.glob("sheet-*.jpg"))  # of pages by earlier versions
    new = folder / f"{_PICTURES}{secrets.token_hex(4)}" if beside else None
    try:
        if new is not None:
            new.mkdir(parents=True)
        yield new
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        for path in sheets:
            path.unlink(missing_ok=True)
    except BaseException as error:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(f"`out` {out} cannot be written ({error.strerror}); choose another place") from error
        raise
    if not beside and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _check_folders(config: ReportConfig) -> None:
    """Refuse folders that are none before the run is read.

    Raises:
        UsageError: it is none.
    """
    for name, expected in (("projections", "with projections"), ("saliency", "written by `ukb-infer explain`")):
        folder = getattr(config, name)
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; expected one {expected}", field=name)


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
    """(N,) the projection of each scan, where there is one; empty if there is none at all."""
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
        "allLabels": has_all_labels(rows),
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
