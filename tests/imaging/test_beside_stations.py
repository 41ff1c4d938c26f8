"""What lies beside the stations is never water or fat: names of NIfTI files, headers of DICOM, parts and copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.support.small_scans import (
    UID,
    encode,
    make_slice,
    make_slices,
    same,
    select,
    write_nifti_stations,
    write_zip,
)
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.imaging.readers.nifti_names import choose_files
from ukb_infer.imaging.series import LeftOut
from ukb_infer.inference.inputs import resolve_inputs
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

OPTIONS = ReadingOptions()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Stations:
    return read_stations(write_zip(tmp_path_factory.mktemp("n") / "a.zip", make_slices(contrasts="WF")), OPTIONS)


def failure(path: Path, fast: bool = True) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_stations(path, OPTIONS, use_fast_path=fast)
    return caught.value


# -- names of NIfTI files ---------------------------------------------------------------------------------------------

BESIDE = [
    "st{n}_{c}_mask",
    "st{n}_{c}Mask",
    "st{n}_{c}-seg",
    "st{n}_{c}_dseg",
    "st{n}_{c}_label",
    "st{n}_{c}_roi",
    "st{n}_{c}_FF",
    "st{n}_{c}_PDFF",
    "st{n}_{c}-fraction",
    "st{n}_{c}_frac",
    "st{n}_{c}_percent",
    "st{n}_{w}_percent",
    "st{n}_{w}fraction",
    "st{n}_{w}Fraction",
    "st{n}_{w}Mask",
    "st{n}_{w}map",
    "st{n}_{c}_T2star",
    "st{n}_{c}_T2s",
    "st{n}_{c}_R2star",
    "st{n}_{c}_R2s",
    "st{n}_{c}_MPR",
    "st{n}_{c}_MIP",
    "st{n}_{c}_phase",
    "st{n}_{c}_ph",
    "st{n}_{c}_real",
    "st{n}_{c}_imag",
    "st{n}_{c}_diff",
    "st{n}_{c}_subtraction",
    "st{n}_{c}_screenshot",
    "st{n}_{c}_localizer",
    "st{n}_{c}_scout",
    "st{n}_{w}sat",
    "st{n}_{c}_corr",
    "st{n}_{c}_uncorr",
    "st{n}_{c}_orig",
    "st{n}_{c}_N4",
    "st{n}_{c}_bfc",
    "st{n}_{c}_norm",
    "st{n}_{c}_denoised",
    "st{n}_{c}_recon",
    "st{n}_{c}_resampled",
    "st{n}_{c}_composed",
    "stitched_{c}_{n}",
    "st{n}_visceral_{w}",
    "st{n}_{c}_cor",
    "mask_st{n}_{c}",
    "FF_st{n}_{c}",
]
STATIONS = ["st1_F.nii.gz", "st1_W.nii.gz", "st2_F.nii.gz", "st2_W.nii.gz"]


def names(pattern: str) -> list[str]:
    words = (("W", "water"), ("F", "fat"))
    return [f"{pattern.format(n=n, c=c, w=w)}.nii.gz" for n in (1, 2) for c, w in words]


@pytest.mark.parametrize("pattern", BESIDE)
def test_files_beside_the_stations_are_left_out_and_counted(pattern: str) -> None:
    left_out = LeftOut()
    chosen = choose_files([*STATIONS, *names(pattern)], left_out)
    assert [file.name for file in chosen] == STATIONS
    assert str(left_out).startswith("4 x ")


@pytest.mark.parametrize(
    "pattern",
    [
        "sub-W01_{c}_station{n}",
        "sub-F01_st{n}_part-{w}",
        "siteA_F_st{n}_{c}",
        "s_W_{w}_{n}",
        "in_st{n}_{c}",
        "wholebody_st{n}_{c}",
        "T1_st{n}_{c}",
        "{c}_W_st{n}",
        "{c}_F_st{n}",
        "F_W_st{n}_{c}_W_F",
        "{c}_{n}_F_W",
        "WF_st{n}_{c}",
        "fat_water_study_{n}_{c}",
        "20201_F_{n}_0_{c}",
        "sub-F01_ses-W2_run-{n}_{w}",
        "{n}_{c}_W_site",
        "F{n}_{c}",
        "{c}{n}_F",
        "{c}{n}_left",
        "scan_{c}{n}_siteF",
        "liver_st{n}_{w}",
    ],
)
def test_the_word_that_varies_between_the_pair_decides(pattern: str) -> None:
    given = names(pattern)
    chosen = {file.name: file.contrast.value for file in choose_files(given, LeftOut())}
    assert [chosen.get(name) for name in given] == ["water", "fat"] * 2


def test_numbered_letters_are_codes_of_participants_where_other_words_differ() -> None:
    given = ["F01_st1_F.nii", "F01_st1_W.nii", "W1_st2_F.nii", "W1_st2_W.nii"]
    assert [file.contrast.value for file in choose_files(given, LeftOut())] == ["fat", "water"] * 2
    given = ["in1_F.nii", "opp1_F.nii", "W1_F.nii", "F1_F.nii"]
    assert {f.name: f.contrast.value for f in choose_files(given, LeftOut())} == {
        "W1_F.nii": "water",
        "F1_F.nii": "fat",
    }
    assert [file.contrast.value for file in choose_files(["W1_F.nii", "W2_F.nii"], LeftOut())] == ["fat"] * 2


def test_a_site_named_like_fat_does_not_make_other_files_fat() -> None:
    given = [f"s_F_st1_{what}.nii.gz" for what in ("fat", "in", "opp", "water")] + ["s_F_T1.nii.gz"]
    assert [file.name for file in choose_files(given, LeftOut())] == [given[0], given[3]]


def test_numbers_of_dcm2niix_may_differ_between_a_pair() -> None:
    given = [f"Dixon_F_{c}_{n}.nii.gz" for c, n in (("F", 7), ("W", 8), ("in", 5))]
    assert [(f.contrast.value, f.number) for f in choose_files(given, LeftOut())] == [("fat", 7), ("water", 8)]


def test_original_copies_go_before_processed_ones_and_others_are_refused() -> None:
    left_out = LeftOut()
    chosen = choose_files([*names("st{n}_{c}_corr"), *names("st{n}_{c}_orig")], left_out)
    assert all("orig" in file.name for file in chosen)
    assert str(left_out) == "4 x copy named corr"
    for given in ([*names("st{n}_{c}_corr"), *names("st{n}_{c}_n4")], ["st1_W_corr.nii", "st1_F.nii"]):
        with pytest.raises(ScanError) as caught:
            choose_files(given, LeftOut())
        assert caught.value.reason is Reason.AMBIGUOUS_SERIES


def beside(folder: Path, suffix: str) -> None:
    """Other voxels at the same places under other names."""
    for path in sorted(folder.iterdir()):
        image = nibabel.load(path)
        made = nibabel.Nifti1Image((np.asarray(image.dataobj) // 2).astype(np.uint16), image.affine)
        nibabel.save(made, folder / path.name.replace(".nii", f"{suffix}.nii"))


@pytest.mark.parametrize("suffix", ["_mask", "_fraction", "_n4"])
def test_a_folder_with_derived_files_gives_the_stations_and_a_flag(
    tmp_path: Path, expected: Stations, suffix: str
) -> None:
    folder = write_nifti_stations(tmp_path / "9100001_20201_2_0", expected.stations)
    beside(folder, suffix)
    found = read_stations(folder, OPTIONS)
    assert same(found, expected, 1e-4)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)
    assert "12 x" in found.messages[0]


def test_unknown_copies_are_refused_and_identical_ones_are_not(tmp_path: Path, expected: Stations) -> None:
    folder = write_nifti_stations(tmp_path / "a", expected.stations)
    beside(folder, "_xyz")
    assert failure(folder).reason is Reason.AMBIGUOUS_SERIES
    again = write_nifti_stations(tmp_path / "b", expected.stations)
    write_nifti_stations(again, expected.stations, "station{}_{}_xyz.nii.gz")
    assert same(read_stations(again, OPTIONS), expected, 1e-4)


@pytest.mark.parametrize(
    ("name", "found"), [("st{}_{}_mask.nii.gz", "12 x mask"), ("st{}_{}_FF.nii.gz", "12 x fraction map")]
)
def test_only_derived_files(tmp_path: Path, expected: Stations, name: str, found: str) -> None:
    error = failure(write_nifti_stations(tmp_path / "a", expected.stations, name))
    assert error.reason is Reason.ONLY_DERIVED_IMAGES
    assert found in error.message


def test_folders_of_derived_images(tmp_path: Path, expected: Stations) -> None:
    write_nifti_stations(tmp_path / "9100001_20201_2_0", expected.stations)
    write_nifti_stations(tmp_path / "derivatives" / "9100001_20201_2_0", expected.stations)
    masks = write_nifti_stations(tmp_path / "water_masks", expected.stations)
    assert [item.key.scan for item in resolve_inputs([str(tmp_path)])] == ["9100001_20201_2_0"]
    assert failure(masks).reason is Reason.ONLY_DERIVED_IMAGES


def test_only_processed_copies_are_used_and_flagged(tmp_path: Path, expected: Stations) -> None:
    found = read_stations(write_nifti_stations(tmp_path, expected.stations, "st{}_{}_N4.nii.gz"), OPTIONS)
    assert found.flags == (Reason.PROCESSED_IMAGES,)
    assert "n4" in found.messages[0]


# -- headers of DICOM -------------------------------------------------------------------------------------------------

HEADERS: dict[str, dict[str, object]] = {
    "fraction by description": {"SeriesDescription": "Dixon_FF", "ImageType": ["DERIVED", "PRIMARY", "DIXON", "FAT"]},
    "percent": {"SeriesDescription": "Dixon_fat_percent", "ImageType": ["DERIVED", "PRIMARY", "WATER"]},
    "fraction of water": {"SeriesDescription": "Dixon_fraction_W"},
    "fraction by type": {"ImageType": ["DERIVED", "PRIMARY", "FAT_FRACTION"]},
    "ff by type": {"ImageType": ["DERIVED", "PRIMARY", "M", "FF"]},
    "r2star": {"ImageType": ["DERIVED", "PRIMARY", "R2_STAR MAP"]},
    "t2star description": {"SeriesDescription": "T2*_W"},
    "mask": {"SeriesDescription": "Dixon_mask_W"},
    "mpr": {"ImageType": ["DERIVED", "SECONDARY", "MPR", "WATER"]},
    "mip": {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
    "projection": {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "WATER"]},
    "phase": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "WATER"]},
    "real": {"ImageType": ["ORIGINAL", "PRIMARY", "R", "WATER"]},
    "subtraction": {"ImageType": ["DERIVED", "SECONDARY", "SUB", "WATER"]},
    "localizer type": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "localizer protocol": {"ProtocolName": "localizer_3plane"},
    "scout description": {"SeriesDescription": "scout_W"},
    "secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"},
    "segmentation": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
    "other modality": {"Modality": "SEG"},
}


def extra_series(values: dict[str, object], station: int = 1) -> list[Dataset]:
    """A later repeat of a station's water, with other voxels and a header of its own."""
    made = [make_slice(station, "W", 40, index) for index in range(9)]
    for ds in made:
        ds.SeriesTime = "235900"
        ds.PixelData = bytes(len(ds.PixelData) - 1) + b"\1"
        for keyword, value in values.items():
            setattr(ds, keyword, value)
    return made


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("header", HEADERS)
def test_headers_beside_the_stations(tmp_path: Path, expected: Stations, header: str, fast: bool) -> None:
    manifest = {"manifest.csv": b"filename,series discription\n" + f"{UID}.108.dcm,Dixon_BH_17s_W\n".encode()}
    path = write_zip(tmp_path / "a.zip", make_slices(contrasts="WF") + extra_series(HEADERS[header]), manifest)
    found = read_stations(path, OPTIONS, use_fast_path=fast)
    assert same(found, expected)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)


@pytest.mark.parametrize(
    "image_type",
    [
        ["ORIGINAL", "PRIMARY", "DIXON", "{}"],
        ["DERIVED", "PRIMARY", "M", "DIXON", "{}", "NORM", "DIS3D"],
        ["DERIVED", "SECONDARY", "DIXON", "{}"],
        ["ORIGINAL", "PRIMARY", "M", "ND", "{}"],
    ],
)
def test_true_dixon_image_types_are_read(tmp_path: Path, expected: Stations, image_type: list[str]) -> None:
    slices = make_slices(contrasts="WF")
    for ds in slices:
        name = "WATER" if ds.SeriesDescription.endswith("W") else "FAT"
        ds.ImageType, ds.SeriesDescription = [value.format(name) for value in image_type], "t1_vibe_dixon_tra"
    found = read_stations(write_zip(tmp_path / "a.zip", slices), OPTIONS)
    assert same(found, expected)
    assert found.flags == ()


STORAGE = "1.2.840.10008.5.1.4.1.1."
#: SOPClassUID and Modality of what has no pixels.
WITHOUT_PIXELS = {
    "presentation state": (f"{STORAGE}11.1", "PR"),
    "key images": (f"{STORAGE}88.59", "KO"),
    "report": (f"{STORAGE}88.33", "SR"),
    "structure set": (f"{STORAGE}481.3", "RTSTRUCT"),
    "encapsulated PDF": (f"{STORAGE}104.1", "DOC"),
    "PDF of modality OT": (f"{STORAGE}104.1", "OT"),
    "raw data": (f"{STORAGE}66", "MR"),
    "spectroscopy": (f"{STORAGE}4.2", "MR"),
    "Siemens non-image": ("1.3.12.2.1107.5.9.1", "MR"),
    "Philips exam card": ("1.3.46.670589.11.0.0.12.4", "MR"),
    "GE": ("1.2.840.113619.4.26", "MR"),
    "no class": ("", "PR"),
}


def without_pixels(ds: Dataset, sop_class: str, modality: str) -> Dataset:
    made = copy.deepcopy(ds)
    for keyword in ("Rows", "Columns", "PixelData", "PixelSpacing", "ImagePositionPatient", "BitsAllocated"):
        delattr(made, keyword)
    made.file_meta.MediaStorageSOPClassUID = sop_class or "1.2.3"
    made.SOPClassUID, made.Modality = sop_class, modality
    return made


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("what", WITHOUT_PIXELS)
def test_objects_without_pixels_are_left_out(tmp_path: Path, expected: Stations, what: str, fast: bool) -> None:
    slices = make_slices(contrasts="WF")
    made = without_pixels(slices[20], *WITHOUT_PIXELS[what])
    found = read_stations(
        write_zip(tmp_path / "a.zip", [*slices[:24], made, *slices[24:]]), OPTIONS, use_fast_path=fast
    )
    assert same(found, expected)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)
    assert "1 x object" in found.messages[0]
    assert "instead" not in found.messages[0]  # it could not be used alone


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("sop_class", [f"{STORAGE}104.1", "1.2.840.10008.5.1.4.38.1", "1.2.840.10008.5.1.4.39.1"])
def test_objects_that_name_nothing_are_ignored(tmp_path: Path, expected: Stations, sop_class: str, fast: bool) -> None:
    """A document, a hanging protocol and a palette, without description or series, in a folder."""
    slices = make_slices(contrasts="WF")
    made = without_pixels(slices[20], sop_class, "OT")
    for keyword in ("SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "Modality", "StudyInstanceUID"):
        delattr(made, keyword)
    for index, ds in enumerate([*slices[:24], made, *slices[24:]]):
        (tmp_path / f"{index}.dcm").write_bytes(encode(ds))
    found = read_stations(tmp_path, OPTIONS, use_fast_path=fast)
    assert same(found, expected)
    assert found.flags == ()


def test_only_maps_in_a_zip(tmp_path: Path) -> None:
    slices = make_slices(contrasts="WF")
    for ds in slices:
        ds.ImageType = ["DERIVED", "PRIMARY", "FAT_FRACTION"]
    error = failure(write_zip(tmp_path / "a.zip", slices))
    assert error.reason is Reason.ONLY_DERIVED_IMAGES
    assert "12 x fraction map" in error.message


def test_copies_of_one_acquisition(tmp_path: Path, expected: Stations) -> None:
    """Marked as not corrected: the unmarked one is used. Differing otherwise, at one time: refused."""

    def with_copies(value: str) -> Path:
        slices = make_slices(contrasts="WF")
        for contrast, number in (("F", 40), ("W", 41)):
            for index in range(9):
                ds = make_slice(1, contrast, number, index)
                ds.ImageType = ["DERIVED", "PRIMARY", "DIXON", value]
                ds.PixelData = bytes(len(ds.PixelData) - 1) + b"\1"
                slices.append(ds)
        return write_zip(tmp_path / f"{value}.zip", slices)

    found = read_stations(with_copies("ND"), OPTIONS)
    assert same(found, expected)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)
    error = failure(with_copies("NORM"))
    assert error.reason is Reason.AMBIGUOUS_SERIES
    assert "NORM" in error.message


# -- parts and composed series ----------------------------------------------------------------------------------------


def continuing(ds: Dataset) -> bool:
    return ds.InstanceNumber > 5


def interleaved(ds: Dataset) -> bool:
    return ds.InstanceNumber % 2 == 0


@pytest.mark.parametrize("second", [continuing, interleaved])
@pytest.mark.parametrize("contrasts", ["W", "WF"])
def test_parts_under_two_uids_are_joined(
    tmp_path: Path, expected: Stations, second: Callable[[Dataset], bool], contrasts: str
) -> None:
    slices = make_slices(contrasts="WF")
    for contrast in contrasts:
        for ds in select(slices, 3, contrast):
            ds.SeriesInstanceUID += ".2" if second(ds) else ""
    found = read_stations(write_zip(tmp_path / "a.zip", slices), OPTIONS)
    assert same(found, expected)
    assert found.flags == (Reason.SERIES_JOINED,)


@pytest.mark.parametrize("second", [continuing, interleaved])
def test_parts_that_differ_in_more_are_refused_with_what_differs(
    tmp_path: Path, second: Callable[[Dataset], bool]
) -> None:
    slices = make_slices(contrasts="WF")
    for contrast, number in (("W", 40), ("F", 41)):
        for ds in filter(second, select(slices, 3, contrast)):
            ds.SeriesInstanceUID, ds.SeriesNumber = f"{UID}.{number}", number
    error = failure(write_zip(tmp_path / "a.zip", slices))
    assert error.reason is Reason.SPLIT_SERIES
    assert "SeriesNumber" in error.message


@pytest.mark.parametrize("described", ["Dixon_composed_{}", "Dixon_{}"])
def test_composed_series_beside_the_stations(tmp_path: Path, expected: Stations, described: str) -> None:
    slices = make_slices(contrasts="WF")
    for contrast, number in (("F", 40), ("W", 41)):
        for index in range(39):
            ds = make_slice(0, contrast, number, index)
            ds.SeriesDescription, ds.SeriesTime = described.format(contrast), "235900"
            slices.append(ds)
    found = read_stations(write_zip(tmp_path / "a.zip", slices), OPTIONS)
    assert same(found, expected)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)
    assert "2 x composed series" in found.messages[0]


def test_series_that_are_not_axial_beside_the_stations(tmp_path: Path, expected: Stations) -> None:
    coronal = extra_series({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]})
    found = read_stations(write_zip(tmp_path / "a.zip", make_slices(contrasts="WF") + coronal), OPTIONS)
    assert same(found, expected)
    assert found.flags == (Reason.EXTRA_IMAGES_LEFT_OUT,)
