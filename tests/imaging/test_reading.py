"""A scan's path to stations: what an input is, what must not matter, and the way to the projection."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.small_scans import (
    SLICES,
    UID,
    encode,
    make_slices,
    outcome,
    picture,
    same,
    select,
    write_nifti_stations,
    write_zip,
)
from ukb_infer.errors import ScanError
from ukb_infer.imaging import input_kind, project_path, read_projection, read_stations, scan_name
from ukb_infer.imaging.readers import containers, dicom_series
from ukb_infer.imaging.recipes import RECIPES
from ukb_infer.phantom import render, sample_subject, write_scan
from ukb_infer.phantom.anomalies import ANOMALIES
from ukb_infer.reasons import Kind, Reason
from ukb_infer.records import ReadingOptions, Station, Stations

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
OPTIONS = ReadingOptions()
#: The reference scans have four stations.
FOUR = ReadingOptions(expected_stations=4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("plain") / "0000001_20201_2_0.zip", make_slices())


@pytest.fixture(scope="module")
def expected(plain: Path) -> Stations:
    return read_stations(plain, OPTIONS)


def test_stations_are_what_was_written(expected: Stations) -> None:
    assert expected.flags == expected.messages == ()
    assert [station.number for station in expected.stations] == [1, 2, 3, 4, 5, 6]
    for index, station in enumerate(expected.stations):
        water = np.stack([picture(index, "W", k) for k in range(SLICES)], axis=-1)
        fat = np.stack([picture(index, "F", k) for k in range(SLICES)], axis=-1)
        assert np.array_equal(station.water, water)
        assert np.array_equal(station.fat, fat)
        assert station.water.dtype == np.uint16
        assert station.position_mm.dtype == np.float32
        assert station.position_mm.tolist() == [-30.5, -22.25, 400.0 - 30.0 * index]
        # Pixel spacing passes through float32 (the recipe), slice spacing is the mean of exact positions.
        assert station.spacing_mm.tolist() == [float(np.float32(2.23214293))] * 2 + [5.0]


@pytest.mark.parametrize("scan", sorted(path.name for path in REFERENCE.glob("*.zip")))
def test_reference_scans_read_alike_by_both_routes(scan: str) -> None:
    fast = read_stations(REFERENCE / scan, FOUR)
    assert same(fast, read_stations(REFERENCE / scan, FOUR, use_fast_path=False))
    assert (len(fast.stations), fast.flags) == (4, ())


def test_order_of_members_does_not_matter(tmp_path: Path, expected: Stations) -> None:
    slices = make_slices()
    random.Random(1).shuffle(slices)
    assert same(read_stations(write_zip(tmp_path / "a.zip", slices), OPTIONS), expected)


MANIFEST = "filename,studydate,series discription\r\nx.dcm,May 5, 2016,Dixon_noBH_in\r\n"


@pytest.mark.parametrize(
    "extra",
    [
        {"manifest.csv": MANIFEST.encode()},
        {"manifest.cvs": MANIFEST.replace("\r\n", "\n").encode()},
        {"manifest.csv": b"\xff\xfe\x00garbage without newline"},
        {"manifest.csv": "\n".join(f"{UID}.{i}.dcm,May 5, 2016,Dixon_noBH_in" for i in range(300)).encode()},
        {"manifest.csv": b""},
        {"__MACOSX/._a.dcm": b"\0\5\x16\7 apple", "readme.txt": b"hello", "sub/": b"", "photo.jpg": b"\xff\xd8" * 99},
    ],
)
def test_manifests_and_junk_change_nothing(tmp_path: Path, expected: Stations, extra: dict[str, bytes]) -> None:
    scan = read_stations(write_zip(tmp_path / "a.zip", make_slices(), extra), OPTIONS)
    assert same(scan, expected)
    assert scan.flags == ()


def test_folder_reads_like_the_zip(tmp_path: Path, expected: Stations) -> None:
    for index, ds in enumerate(make_slices(contrasts="WF")):
        (tmp_path / f"slice{index}").write_bytes(encode(ds))
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    assert input_kind(tmp_path) == "dicom"
    assert same(read_stations(tmp_path, OPTIONS), expected)


def test_folder_with_a_subfolder_a_series_is_one_scan(tmp_path: Path, expected: Stations) -> None:
    for index, ds in enumerate(make_slices()):
        folder = tmp_path / f"series{ds.SeriesNumber}"
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.dcm").write_bytes(encode(ds))
    assert input_kind(tmp_path) == "dicom"
    assert same(read_stations(tmp_path, OPTIONS), expected)


def test_folder_of_scans_is_not_a_scan(tmp_path: Path) -> None:
    for participant in (1, 2):
        folder = tmp_path / f"000000{participant}_20201_2_0"
        folder.mkdir()
        for index, ds in enumerate(make_slices(1, "W")):
            ds.StudyInstanceUID = f"{UID}.{participant}"
            (folder / f"{index}.dcm").write_bytes(encode(ds))
    assert input_kind(tmp_path) is None
    assert input_kind(tmp_path / "0000001_20201_2_0") == "dicom"


def test_input_kinds(tmp_path: Path, plain: Path, expected: Stations) -> None:
    assert input_kind(plain) == "zip"
    (tmp_path / "list.csv").write_text("eid\n")
    (tmp_path / "a.NPY").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert input_kind(tmp_path / "list.csv") is None
    assert input_kind(tmp_path / "a.NPY") == "projection"
    assert input_kind(tmp_path / "empty") is None
    assert input_kind(tmp_path / "absent.zip") is None
    assert input_kind(write_nifti_stations(tmp_path / "n", expected.stations[:1])) == "nifti"


@pytest.mark.parametrize(
    ("name", "reason"), [("absent.zip", Reason.INPUT_MISSING), ("empty", Reason.NO_DICOM), ("a.txt", Reason.NO_DICOM)]
)
def test_what_is_not_a_scan(tmp_path: Path, name: str, reason: Reason) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ScanError) as caught:
        read_stations(tmp_path / name, OPTIONS)
    assert caught.value.reason is reason


def test_series_numbers_may_be_absent(tmp_path: Path, expected: Stations) -> None:
    slices = make_slices()
    for ds in slices:
        del ds.SeriesNumber
    for use_fast_path in (True, False):
        path = write_zip(tmp_path / "a.zip", slices)
        assert same(read_stations(path, OPTIONS, use_fast_path=use_fast_path), expected)


def test_a_uid_for_every_slice_does_not_split_series(tmp_path: Path, expected: Stations) -> None:
    slices = make_slices()
    for index, ds in enumerate(slices):
        ds.SeriesInstanceUID = f"{UID}.77.{index}"
    assert same(read_stations(write_zip(tmp_path / "a.zip", slices), OPTIONS), expected)


def test_a_number_used_by_two_acquisitions_gives_two_series(tmp_path: Path, expected: Stations) -> None:
    slices = make_slices()
    repeat = select(make_slices(), 2, "W") + select(make_slices(), 2, "F")
    for ds in repeat:
        ds.SeriesInstanceUID += ".2"
        ds.SeriesTime = "235959"
        ds.PixelData = bytes(np.full((20, 32), 7 + ds.InstanceNumber, np.uint16))
    scan = read_stations(write_zip(tmp_path / "a.zip", slices + repeat), OPTIONS)
    assert scan.flags == (Reason.DUPLICATE_STATION,)
    assert scan.stations[1].water[0, 0].tolist() == list(range(8, 8 + SLICES))
    assert np.array_equal(scan.stations[2].water, expected.stations[2].water)


def interleaved(slices: list) -> list:
    """One slice of each series in turn."""
    return sorted(slices, key=lambda ds: (ds.InstanceNumber, ds.SeriesNumber))


def with_strangers(slices: list) -> list:
    """Junk and slices of other series inside the runs of the series."""
    moved = [ds for ds in slices if ds.SeriesDescription.endswith("in")][:3]
    rest = [ds for ds in slices if ds not in moved]
    water = next(index for index, ds in enumerate(rest) if ds.SeriesDescription.endswith("W"))
    for offset, ds in enumerate(moved):
        rest.insert(water + 3 + 2 * offset, ds)
    return rest


@pytest.mark.parametrize("arrange", [list, interleaved, with_strangers])
@pytest.mark.parametrize("stride", [2, 3, 8])
def test_jumping_over_members_changes_nothing(
    tmp_path: Path, expected: Stations, monkeypatch: pytest.MonkeyPatch, arrange: Callable[[list], list], stride: int
) -> None:
    """Members inside a run are taken for its series unseen; where that was wrong, every member is looked at."""
    monkeypatch.setattr(dicom_series, "_STRIDE", stride)
    assert same(read_stations(write_zip(tmp_path / "a.zip", arrange(make_slices())), OPTIONS), expected)


def test_junk_inside_a_run_is_ignored(
    tmp_path: Path, expected: Stations, monkeypatch: pytest.MonkeyPatch, plain: Path
) -> None:
    monkeypatch.setattr(dicom_series, "_STRIDE", 4)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "a.zip", "w") as new:
        for index, info in enumerate(old.infolist()):
            new.writestr(info, old.read(info))
            if index % 9 == 3:
                new.writestr(f"notes{index}.txt", b"junk" * 1000)
    assert same(read_stations(tmp_path / "a.zip", OPTIONS), expected)


def test_most_members_of_long_runs_are_not_looked_at(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    peek = containers.ZipSource.peek
    monkeypatch.setattr(dicom_series, "_STRIDE", 6)
    monkeypatch.setattr(
        containers.ZipSource, "peek", lambda self, index, size: looked.append(index) or peek(self, index, size)
    )
    read_stations(plain, OPTIONS)
    water_and_fat = [index for index in looked if index // SLICES % 4 >= 2]
    # Of each run of nine, five in the middle are jumped over; one of each water run is where a jump from fat ended.
    assert len(set(water_and_fat)) == 12 * (SLICES - 5) + 6


def test_scanner_headers_longer_than_the_first_peek(tmp_path: Path, expected: Stations) -> None:
    slices = make_slices()
    for ds in slices:
        ds.PatientComments = "c" * 40  # after the series' description, before its number
        ds.ImageComments = "d" * 9000
        ds.add_new(0x00091010, "OB", bytes(random.Random(ds.InstanceNumber).randbytes(4000)))
    path = write_zip(tmp_path / "a.zip", slices)
    assert same(read_stations(path, OPTIONS), expected)
    assert same(read_stations(path, OPTIONS, use_fast_path=False), expected)


SPOILERS = {
    "short pixels": lambda s: setattr(s[40], "PixelData", b"\0\0"),
    "no position": lambda s: delattr(select(s, 1, "W")[3], "ImagePositionPatient"),
    "tall slice": lambda s: setattr(select(s, 1, "W")[3], "Rows", 10),
    "rescaled": lambda s: [setattr(ds, "RescaleSlope", "2") for ds in s],
    "half rescaled": lambda s: [setattr(ds, "RescaleSlope", "2") for ds in select(s, 3, "F")],
    "other participant": lambda s: setattr(select(s, 1, "W")[3], "PatientID", "0000002"),
    "other examination": lambda s: [setattr(ds, "StudyInstanceUID", UID) for ds in select(s, 4, "W")],
    "tilted": lambda s: [setattr(ds, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]) for ds in s],
    "nan position": lambda s: setattr(select(s, 1, "W")[3], "ImagePositionPatient", [0, 0, 90000]),
    "signed": lambda s: [setattr(ds, "PixelRepresentation", 1) for ds in s],
    "two slices gone": lambda s: [s.remove(ds) for ds in select(s, 2, "F")[3:5]],
    "one slice gone": lambda s: s.remove(select(s, 2, "F")[3]),
    "end slice gone": lambda s: s.remove(select(s, 2, "F")[0]),
    "series gone": lambda s: [s.remove(ds) for ds in select(s, 2, "F")],
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_both_routes_say_the_same_of_spoilt_scans(tmp_path: Path, spoiler: str) -> None:
    slices = make_slices(contrasts="WF")
    SPOILERS[spoiler](slices)
    path = write_zip(tmp_path / "a.zip", slices)
    fast = outcome(lambda: read_stations(path, OPTIONS))
    assert fast == outcome(lambda: read_stations(path, OPTIONS, use_fast_path=False))
    assert (fast == "") == (spoiler == "signed")


@pytest.fixture(scope="module")
def rendered() -> dict[Reason | None, tuple[Station, ...]]:
    """Stations of one phantom, coarse, by the anomaly drawn into them; filled as needed."""
    return {None: render(sample_subject(0, 1), "small").stations}


def phantom_scan(
    rendered: dict[Reason | None, tuple[Station, ...]], folder: Path, form: str, anomaly: Reason | None, seed: int = 0
) -> Path:
    effect = anomaly if anomaly is not None and ANOMALIES[anomaly].effect else None
    if effect not in rendered:
        rendered[effect] = render(sample_subject(0, 1), "small", frozenset([anomaly])).stations
    return write_scan(rendered[effect], folder, "0000001_20201_2_0", form, anomaly, seed)


@pytest.mark.parametrize("anomaly", ANOMALIES)
def test_every_anomaly_gives_its_code(tmp_path: Path, rendered: dict, anomaly: Reason) -> None:
    form = ANOMALIES[anomaly].formats[0]
    path = phantom_scan(rendered, tmp_path, form, anomaly)
    try:
        found = ",".join(project_path(path, OPTIONS).flags)
    except ScanError as error:
        found = error.reason
    kind = anomaly.kind
    assert found == ("" if kind in (Kind.TOLERATED, Kind.APPEARANCE, Kind.QUALITY) else anomaly)
    if form == "zip" and kind not in (Kind.APPEARANCE, Kind.QUALITY):
        fast = outcome(lambda: read_stations(path, OPTIONS))
        assert fast == outcome(lambda: read_stations(path, OPTIONS, use_fast_path=False))


@pytest.mark.parametrize(
    "anomaly",
    [reason for reason in ANOMALIES if reason.kind is Kind.TOLERATED]
    + [Reason.DUPLICATE_STATION, Reason.SLICE_DUPLICATE],
)
def test_what_must_not_matter_leaves_every_voxel(tmp_path: Path, rendered: dict, anomaly: Reason) -> None:
    clean = read_stations(phantom_scan(rendered, tmp_path / "clean", "zip", None), OPTIONS)
    assert same(read_stations(phantom_scan(rendered, tmp_path, "zip", anomaly), OPTIONS), clean)


def test_all_formats_of_a_phantom_project_alike(tmp_path: Path, rendered: dict) -> None:
    images = [
        project_path(phantom_scan(rendered, tmp_path, form, None), OPTIONS).image.astype(int)
        for form in ("zip", "dicom", "nifti")
    ]
    assert np.array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() <= 1  # float32 affines move the geometry by 1e-5 voxels


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("anomaly", [reason for reason in ANOMALIES if not ANOMALIES[reason].effect])
def test_every_variant_of_every_anomaly_in_every_format(
    tmp_path: Path, rendered: dict, anomaly: Reason, seed: int
) -> None:
    for form in ANOMALIES[anomaly].formats:
        path = phantom_scan(rendered, tmp_path / form, form, anomaly, seed)
        try:
            found = ",".join(project_path(path, OPTIONS).flags)
        except ScanError as error:
            found = error.reason
        assert found == ("" if anomaly.kind in (Kind.TOLERATED, Kind.QUALITY) else anomaly)


def test_strict_turns_the_first_flag_into_a_failure(tmp_path: Path) -> None:
    slices = make_slices(contrasts="WF")
    slices.remove(select(slices, 2, "F")[3])
    path = write_zip(tmp_path / "a.zip", slices)
    with pytest.raises(ScanError) as caught:
        project_path(path, ReadingOptions(strict=True))
    assert caught.value.reason is Reason.SLICE_INTERPOLATED


def test_project_path_reproduces_the_reference() -> None:
    path = sorted(REFERENCE.glob("*.zip"))[0]
    projection = project_path(path, FOUR)
    difference = np.abs(projection.image.astype(int) - np.load(path.with_suffix(".npy")))
    # RECIPE: at least 99.5 % of pixels identical, none more than one grey level apart.
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.995
    assert (projection.key.scan, projection.stations, projection.flags) == (path.stem, 4, ())


def test_cached_projections(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 256, 256)).astype(np.uint8)
    path = tmp_path / "0000001_20201_2_0.npy"
    np.save(path, image)
    assert np.array_equal(read_projection(path, RECIPES["mimir-1"]), image)
    np.save(path, np.asfortranarray(image))
    assert np.array_equal(read_projection(path, RECIPES["mimir-1"]), image)
    projection = project_path(path, OPTIONS)
    assert projection.flags == (Reason.QUALITY_UNKNOWN,)
    assert (projection.key.eid, projection.key.instance, projection.stations) == ("0000001", 2, 0)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 256, 256), np.uint8), Reason.EMPTY_IMAGE),
        (np.zeros((3, 256, 255), np.uint8), Reason.BAD_PROJECTION),
        (np.zeros((3, 256, 256), np.int8), Reason.BAD_PROJECTION),
        (np.zeros((256, 256, 3), np.uint8), Reason.BAD_PROJECTION),
        (np.zeros((3, 256, 256), np.float64), Reason.BAD_PROJECTION),
    ],
)
def test_bad_projections(tmp_path: Path, array: np.ndarray, reason: Reason) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ScanError) as caught:
        read_projection(tmp_path / "a.npy", RECIPES["mimir-1"])
    assert caught.value.reason is reason


def test_scan_names() -> None:
    assert scan_name(Path("x/0000001_20201_2_0.zip")) == "0000001_20201_2_0"
    assert scan_name(Path("0000001_20201_2_0.NPY")) == "0000001_20201_2_0"
    assert scan_name(Path("a/b.c/")) == "b.c"
    assert scan_name(Path()) == Path.cwd().name
