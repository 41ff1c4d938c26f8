"""``volumetry``: a label map drawn on a stitched scan to litres and fat fractions."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ukb_infer.errors import UsageError
from ukb_infer.inference.config import check_swaps
from ukb_infer.labels.tables import read_table
from ukb_infer.records import ReadingOptions, ScanKey, Station, SwapMode
from ukb_infer.runs.tables import KEY_COLUMNS, safe_cell
from ukb_infer.storage import atomic_write_text

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.volumetry import LabelMeasure, PlacedLabels

COLUMNS = ("label", "name", "voxels", "volume_litres", "mean_fat_fraction", "outside_litres")
_NUMBER_COLUMNS = ("label", "index", "value")


def run_volumetry(
    labels: str | Path,
    scan: str | Path,
    *,
    names: Path | None = None,
    out: Path | None = None,
    stations: Path | None = None,
    options: ReadingOptions | None = None,
    swaps: SwapMode = "flag",
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Measure every label of a map.

    Args:
        labels: the map, ``.nii`` or ``.nii.gz``.
        scan: what it was drawn on.
        names: table with a column label (or index, value) and a column name; what it names and the map lacks is 0.
        out: file to write the table to, or None; its folder is made if missing.
        stations: folder to write the labels on every station's own voxels to, or None.
        options: how the scan is read.
        swaps: what is done about fat-water swaps before fat fractions are taken; as given to ``stitch``.
        say: receives what was found of swaps.

    Returns:
        The table, CSV with one row a label.

    Raises:
        UsageError: a map that does not belong to the scan, or names that cannot be read.
        ScanError: the map or the scan cannot be used.
    """
    from ukb_infer.imaging.readers.nifti import read_label_map
    from ukb_infer.imaging.reading import read_stations, scan_name
    from ukb_infer.imaging.volumes.volumetry import measure_labels, place_labels
    from ukb_infer.quality import find_and_treat

    check_swaps(swaps)
    labels, scan = Path(labels), Path(scan)
    if not labels.is_file():
        raise UsageError(f"{labels} is not a file; expected a label map, .nii or .nii.gz", field="labels")
    known = {} if names is None else read_names(names)
    values, affine = read_label_map(labels)
    read = read_stations(scan, options or ReadingOptions())
    treated, _ = find_and_treat(read, swaps)
    own = treated.stations
    for message in treated.messages[len(read.messages) :]:
        say(f"{message}; fat fractions are as scanned where a swap was not corrected (`swaps`)")
    placed = place_labels(values, affine, own)
    text = table_of(measure_labels(placed, own), ScanKey.from_name(scan_name(scan)), known, len(own))
    if stations is not None:
        _write_stations(placed, own, stations, labels.name.removesuffix(".gz").removesuffix(".nii"))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out, text)
    return text


def read_names(path: Path) -> dict[int, str]:
    """Names of labels from a table.

    Raises:
        UsageError: no such file, columns or numbers.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; expected a table with columns label and name", field="names")
    frame = read_table(path, "`names`", lambda column: column.lower() in _NUMBER_COLUMNS).frame
    columns = {str(c).lower(): c for c in frame.columns}
    number = next((columns[c] for c in _NUMBER_COLUMNS if c in columns), None)
    if number is None or "name" not in columns:
        found = ", ".join(map(str, frame.columns))
        raise UsageError(f"has the columns {found}; expected label (or index, value) and name", field="names")
    try:
        numbers = [int(str(text)) for text in frame[number]]
    except ValueError as error:
        raise UsageError(f"the column {number} should hold whole numbers ({error})", field="names") from error
    return dict(zip(numbers, map(str, frame[columns["name"]]), strict=True))


def table_of(measures: Sequence[LabelMeasure], key: ScanKey, names: Mapping[int, str], stations: int) -> str:
    """The table as CSV: the scan's key, the label, what was measured, and litres by station.

    Args:
        measures: of the labels that the map has.
        key: of the scan.
        names: of labels.
        stations: of the scan.
    """
    cells = ["" if v is None else str(v) for v in (key.eid, key.instance, key.array, safe_cell(key.scan))]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*KEY_COLUMNS, *COLUMNS, *(f"station_{k + 1}_litres" for k in range(stations))])
    rows = {m.label: _cells_of(m) for m in measures}
    absent = ["0", "0.0", "", "0.0", *["0.0"] * stations]
    for label in sorted({*rows, *names} - {0}):
        writer.writerow([*cells, label, safe_cell(names.get(label, "")), *rows.get(label, absent)])
    return buffer.getvalue()


def _cells_of(m: LabelMeasure) -> list[str]:
    fraction = "" if math.isnan(m.mean_fat_fraction) else repr(m.mean_fat_fraction)
    litres = [repr(v) for v in m.station_litres]
    return [str(m.voxels), repr(m.volume_litres), fraction, repr(m.outside_litres), *litres]


def _write_stations(placed: PlacedLabels, stations: Sequence[Station], folder: Path, stem: str) -> None:
    """Write ``<stem>_station-<N>.nii.gz`` for every station."""
    from ukb_infer.imaging.volumes.nifti import Storage, write_nifti
    from ukb_infer.imaging.volumes.volumetry import labels_of_station

    largest = int(placed.labels[-1])
    for k, station in enumerate(stations):
        turned = labels_of_station(placed, k)[::-1, ::-1, ::-1]
        planes = (turned[:, :, n] for n in range(turned.shape[2]))
        rows, cols, slices = turned.shape
        storage = Storage("int16" if largest < 2**15 else "float32", 1.0)
        path = folder / f"{stem}_station-{station.number}.nii.gz"
        write_nifti(path, planes, (cols, rows, slices), station.affine, storage)
