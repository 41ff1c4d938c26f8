"""What a NIfTI header says of values and places: honoured, refused or flagged (``docs/stored-values.md``)."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import header_dtype as NIFTI1
from nibabel.nifti2 import header_dtype as NIFTI2

from tests.support.small_scans import make_slices, same, write_nifti_stations, write_zip
from ukb_infer.errors import ScanError
from ukb_infer.imaging import read_stations
from ukb_infer.reasons import Reason
from ukb_infer.records import ReadingOptions, Stations

ONE = ReadingOptions(expected_stations=1)
ROUNDING_MM = 1e-4

#: Changes fields of a header as they stand in the file.
Edit = Callable[[np.ndarray], object]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Stations:
    return read_stations(write_zip(tmp_path_factory.mktemp("n") / "a.zip", make_slices(1, "WF")), ONE)


def spoil(folder: Path, edit: Edit, contrasts: str = "WF", order: str = "<") -> None:
    """Change the fields of files that nothing repairs afterwards."""
    for path in folder.iterdir():
        data = bytearray(gzip.decompress(path.read_bytes()))
        layout = (
            NIFTI1 if data[0] in (92, 0) and 348 in np.frombuffer(data[:4], order + "i4") else NIFTI2
        ).newbyteorder(order)
        record = np.frombuffer(data[: layout.itemsize], layout).copy()
        if path.name.split(".")[0][-1] in contrasts:
            edit(record)
        path.write_bytes(gzip.compress(record.tobytes() + bytes(data[layout.itemsize :]), 1))


def read(folder: Path, clean: Stations, edit: Edit, contrasts: str = "WF") -> Stations:
    spoil(write_nifti_stations(folder, clean.stations), edit, contrasts)
    return read_stations(folder, ONE)


def refusal(folder: Path, clean: Stations, edit: Edit, contrasts: str = "WF") -> ScanError:
    with pytest.raises(ScanError) as caught:
        read(folder, clean, edit, contrasts)
    return caught.value


def put(name: str, value: object, index: int | slice | None = None) -> Edit:
    def edit(record: np.ndarray) -> None:
        if index is None:
            record[name] = value
        else:
            record[name][0, index] = value

    return edit


def both(*edits: Edit) -> Edit:
    return lambda record: [edit(record) for edit in edits]


# -- versions and order of bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_versions_and_orders_of_bytes(tmp_path: Path, clean: Stations, kind: type, order: str) -> None:
    folder = write_nifti_stations(tmp_path, clean.stations)
    for path in folder.iterdir():
        image = nibabel.load(path)
        voxels, affine = np.asarray(image.dataobj), image.affine
        nibabel.save(kind(voxels, affine, kind.header_class(endianness=order)), path)
    spoil(folder, lambda record: None, order=order)
    assert same(read_stations(folder, ONE), clean, ROUNDING_MM)


# -- values -----------------------------------------------------------------------------------------------------------

UNSCALED = [(0.0, 0.0), (0.0, 7.0), (math.nan, 0.0), (math.nan, math.nan), (1.0, 0.0)]


@pytest.mark.parametrize(("slope", "intercept"), UNSCALED)
def test_no_scaling(tmp_path: Path, clean: Stations, slope: float, intercept: float) -> None:
    found = read(tmp_path, clean, both(put("scl_slope", slope), put("scl_inter", intercept)))
    assert same(found, clean, ROUNDING_MM)
    assert found.flags == ()


def test_scaling_of_one_file_is_applied_to_it(tmp_path: Path, clean: Stations) -> None:
    found = read(tmp_path, clean, both(put("scl_slope", 0.5), put("scl_inter", 3.0)), "F")
    assert found.flags == (Reason.RESCALE_APPLIED,)
    assert np.array_equal(found.stations[0].fat, clean.stations[0].fat * 0.5 + 3.0)
    assert np.array_equal(found.stations[0].water, clean.stations[0].water)


def test_scaling_of_float_voxels_is_applied(tmp_path: Path, clean: Stations) -> None:
    folder = write_nifti_stations(tmp_path, clean.stations)
    for path in folder.iterdir():
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj).astype("f4") / 4, image.affine), path)
    spoil(folder, put("scl_slope", 4.0))
    assert np.array_equal(read_stations(folder, ONE).stations[0].water, clean.stations[0].water)


REFUSED: dict[str, tuple[Edit, Reason, str]] = {
    "infinite slope": (put("scl_slope", math.inf), Reason.NON_FINITE_VALUES, "scl_slope inf"),
    "intercept nan": (both(put("scl_slope", 2), put("scl_inter", math.nan)), Reason.NON_FINITE_VALUES, "scl_inter nan"),
    "colours": (both(put("datatype", 128), put("bitpix", 24)), Reason.UNSUPPORTED_PIXELS, "RGB"),
    "colours with alpha": (both(put("datatype", 2304), put("bitpix", 32)), Reason.UNSUPPORTED_PIXELS, "RGBA"),
    "complex": (both(put("datatype", 32), put("bitpix", 64)), Reason.UNSUPPORTED_PIXELS, "complex"),
    "float128": (both(put("datatype", 1536), put("bitpix", 128)), Reason.UNSUPPORTED_PIXELS, "128 bits"),
    "bits": (both(put("datatype", 1), put("bitpix", 1)), Reason.UNSUPPORTED_PIXELS, "single bits"),
    "no datatype": (put("datatype", 0), Reason.UNSUPPORTED_PIXELS, "unknown number type"),
    "bitpix": (put("bitpix", 8), Reason.UNREADABLE_NIFTI, "bitpix 8"),
    "labels": (put("intent_code", 1002), Reason.UNSUPPORTED_PIXELS, "intent_code 1002"),
    "p-values": (put("intent_code", 22), Reason.UNSUPPORTED_PIXELS, "intent_code 22"),
    "pair of files": (put("magic", b"ni1"), Reason.UNREADABLE_NIFTI, ".img"),
    "Analyze": (put("magic", b""), Reason.UNREADABLE_NIFTI, "Analyze"),
    "header of another size": (put("sizeof_hdr", 347), Reason.UNREADABLE_NIFTI, "size of a NIfTI header"),
    "voxels in the header": (put("vox_offset", 0), Reason.UNREADABLE_NIFTI, "vox_offset 0"),
    "voxels at half a byte": (put("vox_offset", 352.5), Reason.UNREADABLE_NIFTI, "vox_offset 352.5"),
    "voxels nowhere": (put("vox_offset", math.nan), Reason.UNREADABLE_NIFTI, "vox_offset nan"),
    "voxels far away": (put("vox_offset", 1e9), Reason.UNREADABLE_NIFTI, "vox_offset 1e+09"),
    "unknown unit": (put("xyzt_units", 5), Reason.UNREADABLE_NIFTI, "unit of length"),
    "metres that are mm": (put("xyzt_units", 1), Reason.IMPLAUSIBLE_GEOMETRY, "spacing"),
    "template": (put("sform_code", 4), Reason.MISSING_AFFINE, "sform_code 4"),
    "Talairach": (put("sform_code", 3), Reason.MISSING_AFFINE, "sform_code 3"),
    "no code": (put("sform_code", 0), Reason.MISSING_AFFINE, "sform_code 0"),
    "flat affine": (
        both(put("srow_x", 2, slice(2)), put("srow_y", 2, slice(2))),
        Reason.IMPLAUSIBLE_GEOMETRY,
        "right angles",
    ),
    "four dimensions": (both(put("dim", 4, 0), put("dim", 2, 4)), Reason.UNREADABLE_NIFTI, "three dimensions"),
    "negative dimension": (put("dim", -3, 2), Reason.IMPLAUSIBLE_GEOMETRY, "shape"),
}


@pytest.mark.parametrize("contrasts", ["WF", "W"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_headers(tmp_path: Path, clean: Stations, case: str, contrasts: str) -> None:
    edit, reason, words = REFUSED[case]
    error = refusal(tmp_path, clean, edit, contrasts)
    assert error.reason is reason
    assert words in error.message


HARMLESS: dict[str, Edit] = {
    "display": both(put("cal_min", 5), put("cal_max", 6)),
    "directions of encoding": put("dim_info", 57),
    "timing": both(put("slice_code", 1), put("slice_end", 3), put("slice_duration", 0.1), put("toffset", 2)),
    "text": both(put("descrip", b"a"), put("aux_file", b"b"), put("intent_name", b"c"), put("intent_p1", 3)),
    "unused": both(put("regular", b"r"), put("extents", 16384), put("glmax", 3)),
    "unknown unit": put("xyzt_units", 0),
    "unit of time": put("xyzt_units", 2 + 24),
    "qform without code": both(put("quatern_b", 0.7), put("qoffset_x", 99)),
    "template beside the scanner": put("qform_code", 4),
    "qfac unused": put("pixdim", 0.5, 0),
    "trailing dimensions of 1": both(put("dim", 5, 0), put("dim", 1, 4), put("dim", 1, 5)),
    "no pixdim": put("pixdim", 0, 2),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_fields_without_effect(tmp_path: Path, clean: Stations, case: str) -> None:
    found = read(tmp_path, clean, HARMLESS[case])
    assert same(found, clean, ROUNDING_MM)
    assert found.flags == ()


def with_extension(data: bytes, code: int = 6) -> bytes:
    extension = np.array([32, code], "<i4").tobytes() + b"signal? slope 3? no.    "
    record = np.frombuffer(data[:348], NIFTI1).copy()
    record["vox_offset"] += len(extension)
    return record.tobytes() + b"\1\0\0\0" + extension + data[352:]


def test_extensions_are_skipped(tmp_path: Path, clean: Stations) -> None:
    folder = write_nifti_stations(tmp_path, clean.stations)
    for path in folder.iterdir():
        path.write_bytes(gzip.compress(with_extension(gzip.decompress(path.read_bytes()))))
    assert same(read_stations(folder, ONE), clean, ROUNDING_MM)


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e-3), (3, 1e3), (0, 1.0)])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_units_of_length_are_honoured(tmp_path: Path, clean: Stations, form: str, unit: int, factor: float) -> None:
    def edit(record: np.ndarray) -> None:
        for name in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
            record[name] *= factor
        record["pixdim"][0, 1:4] *= factor
        record["xyzt_units"] = unit + 8

    folder = with_qform(write_nifti_stations(tmp_path, clean.stations), 0 if form == "sform" else 1)
    if form == "qform":
        spoil(folder, put("sform_code", 0))
    spoil(folder, edit)
    found = read_stations(folder, ONE)
    assert same(found, clean, 1e-3)
    assert found.flags == ()


def with_qform(folder: Path, code: int) -> Path:
    """Give every file the qform that equals its sform."""
    for path in folder.iterdir():
        image = nibabel.load(path)
        image.set_qform(image.affine, code)
        nibabel.save(image, path)
    return folder


def forms(folder: Path, clean: Stations, sform: int, qform: int, edit: Edit) -> Path:
    made = with_qform(write_nifti_stations(folder, clean.stations), qform)
    spoil(made, both(put("sform_code", sform), edit))
    return made


MOVED: dict[str, Edit] = {
    "offset": lambda r: np.copyto(r["qoffset_z"], r["qoffset_z"] + 40),
    "turn": both(put("quatern_b", 0.6), put("quatern_c", 0.0), put("quatern_d", 0.8)),
    "qfac": lambda r: np.copyto(r["pixdim"][:, 0], -r["pixdim"][:, 0]),
}


@pytest.mark.parametrize("case", MOVED)
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 2)])
def test_two_affines_of_one_kind_that_differ_are_refused(
    tmp_path: Path, clean: Stations, sform: int, qform: int, case: str
) -> None:
    with pytest.raises(ScanError) as caught:
        read_stations(forms(tmp_path, clean, sform, qform, MOVED[case]), ONE)
    assert caught.value.reason is Reason.GEOMETRY_INCONSISTENT


@pytest.mark.parametrize("case", MOVED)
def test_the_scanners_affine_goes_before_an_aligned_one(tmp_path: Path, clean: Stations, case: str) -> None:
    found = read_stations(forms(tmp_path / "a", clean, 1, 2, MOVED[case]), ONE)
    assert same(found, clean, ROUNDING_MM)
    assert found.flags == (Reason.GEOMETRY_DISAGREES,)
    assert "sform, which was used" in found.messages[0]

    def move_sform(record: np.ndarray) -> None:
        record["srow_z"][0, 3] += 40

    found = read_stations(forms(tmp_path / "b", clean, 2, 1, move_sform), ONE)
    assert same(found, clean, 1e-3)
    assert found.flags == (Reason.GEOMETRY_DISAGREES,)
    assert "qform, which was used" in found.messages[0]


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 1), (0, 1), (4, 1), (1, 0), (1, 3)])
def test_two_affines_that_agree(tmp_path: Path, clean: Stations, sform: int, qform: int) -> None:
    found = read_stations(forms(tmp_path, clean, sform, qform, lambda record: None), ONE)
    assert same(found, clean, 1e-3)
    assert found.flags == ()


def test_a_template_affine_is_not_compared(tmp_path: Path, clean: Stations) -> None:
    found = read_stations(forms(tmp_path, clean, 4, 1, lambda r: np.copyto(r["srow_z"], r["srow_z"] * 1.2)), ONE)
    assert same(found, clean, 1e-3)
    assert found.flags == ()


@pytest.mark.parametrize("edit", [put("pixdim", 0.5, 0), put("quatern_b", 3.0), put("quatern_c", math.nan)])
def test_a_qform_that_is_none_is_refused(tmp_path: Path, clean: Stations, edit: Edit) -> None:
    with pytest.raises(ScanError) as caught:
        read_stations(forms(tmp_path, clean, 0, 1, edit), ONE)
    assert caught.value.reason in (Reason.UNREADABLE_NIFTI, Reason.IMPLAUSIBLE_GEOMETRY)


@pytest.mark.parametrize("size", [2.0, 4.5])
def test_voxel_sizes_that_contradict_the_affine_are_flagged(tmp_path: Path, clean: Stations, size: float) -> None:
    found = read(tmp_path, clean, put("pixdim", size, 3))
    assert same(found, clean, ROUNDING_MM)
    assert found.flags == (Reason.GEOMETRY_DISAGREES,)
    assert "pixdim" in found.messages[0]
