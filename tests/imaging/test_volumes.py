"""Volumes of heads: read in any orientation, brought to a box and back."""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from ukb_infer.errors import ScanError
from ukb_infer.imaging.volumes.preprocess import (
    VolumeSettings,
    head_mask,
    preprocess,
    preprocess_labels,
    save_mask,
    to_native,
)
from ukb_infer.imaging.volumes.read import Volume, read_volume
from ukb_infer.reasons import Reason

SHAPE = (20, 24, 16)
SETTINGS = VolumeSettings(spacing_mm=4.0, size=(16, 20, 12))


def make_head(shape: tuple[int, int, int] = SHAPE, background: float = 0.0) -> np.ndarray:
    """An ellipsoid with a gradient from left to right and from bottom to top, float32."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.7
    return np.where(inside, 100 + 30 * grid[0] + 10 * grid[2], background).astype(np.float32)


def affine_of(spacing: float = 4.0) -> np.ndarray:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-38.0, -46.0, -30.0)
    return affine


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, kind: str = "Nifti1Image") -> Path:
    image = getattr(nibabel, kind)(data, affine_of() if affine is None else affine)
    nibabel.save(image, path)
    return path


def stored_as(data: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same head with its axes stored in another order."""
    turn = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(tuple(codes)))
    turned = nibabel.orientations.apply_orientation(data, turn)
    return turned, affine_of() @ inv_ornt_aff(turn, data.shape)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL", "SRA"])
def test_any_orientation_gives_the_same_volume(tmp_path: Path, codes: str) -> None:
    data = make_head()
    stored, affine = stored_as(data, codes)
    volume = read_volume(save(tmp_path / "t1.nii.gz", stored, affine))
    assert np.array_equal(volume.data, data)
    assert np.allclose(volume.affine, affine_of())
    assert [f.reason for f in volume.findings] == ([] if codes == "RAS" else [Reason.REORIENTED])


def break_gzip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def without_affine(path: Path) -> None:
    image = nibabel.Nifti1Image(make_head(), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, path)


def zero_affine(path: Path) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
    data[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    path.write_bytes(gzip.compress(bytes(data)))


def with_nan(path: Path) -> None:
    data = make_head()
    data[3, 4, 5] = np.nan
    save(path, data)


def too_large(path: Path) -> None:
    data = make_head()
    data[3, 4, 5] = 3e38
    save(path, data)


def sheared(path: Path) -> None:
    affine = affine_of()
    affine[0, 1] = 4.0
    save(path, make_head(), affine)


BROKEN: dict[str, tuple[Callable[[Path], object], Reason]] = {
    "truncated": (break_gzip, Reason.UNREADABLE_NIFTI),
    "four dimensions": (lambda p: save(p, np.stack([make_head()] * 2, axis=3)), Reason.SEVERAL_VOLUMES),
    "two dimensions": (lambda p: save(p, make_head()[:, :, 0]), Reason.UNREADABLE_NIFTI),
    "NaN": (with_nan, Reason.NON_FINITE_VALUES),
    "absurd": (too_large, Reason.NON_FINITE_VALUES),
    "zero affine": (zero_affine, Reason.MISSING_AFFINE),
    "no affine": (without_affine, Reason.MISSING_AFFINE),
    "sheared": (sheared, Reason.IMPLAUSIBLE_GEOMETRY),
    "flat": (lambda p: save(p, np.full(SHAPE, 7, np.int16)), Reason.EMPTY_IMAGE),
    "no file": (lambda p: p.unlink(), Reason.INPUT_MISSING),
    "text": (lambda p: p.write_text("not an image"), Reason.UNREADABLE_NIFTI),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_volumes_are_refused_with_their_reason(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "t1.nii.gz", make_head())
    spoil, reason = BROKEN[name]
    spoil(path)
    with pytest.raises(ScanError) as caught:
        read_volume(path)
    assert caught.value.reason is reason


def test_any_damaged_header_gives_a_volume_or_a_reason(tmp_path: Path) -> None:
    whole = save(tmp_path / "t1.nii", make_head((6, 7, 5))).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(348, size=2):
            damaged[at] = rng.integers(256)
        (tmp_path / "t1.nii").write_bytes(bytes(damaged))
        try:
            outcomes.add(str(read_volume(tmp_path / "t1.nii").data.shape))
        except ScanError as error:
            outcomes.add(error.reason.value)
    assert {"(6, 7, 5)", "unreadable_nifti", "implausible_geometry"} <= outcomes


def test_one_volume_in_four_dimensions_is_read(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "t1.nii", make_head()[..., None]))
    assert np.array_equal(volume.data, make_head())


def test_a_tilted_volume_is_read_and_flagged(tmp_path: Path) -> None:
    angle = np.deg2rad(30)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = read_volume(save(tmp_path / "t1.nii.gz", make_head(), turn @ affine_of()))
    assert [f.reason for f in volume.findings] == [Reason.TILTED]


def test_an_empty_mask_is_read_as_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "seg.nii.gz", np.zeros(SHAPE, np.uint8))
    assert not read_volume(path, labels=True).data.any()
    assert read_volume(path, labels=True).label_volumes_ml(1) == [0.0]


@pytest.mark.parametrize("value", [0.5, -1.0, 255.0])
def test_a_mask_of_other_numbers_than_labels_is_refused(value: float, tmp_path: Path) -> None:
    """It would be taken for an empty one."""
    data = np.zeros(SHAPE, np.float32)
    data[2:4, 2:4, 2:4] = value
    with pytest.raises(ScanError) as caught:
        read_volume(save(tmp_path / "seg.nii.gz", data), labels=True).label_volumes_ml(1)
    assert caught.value.reason is Reason.NOT_LABELS


def test_labels_that_were_stored_by_a_factor_are_whole(tmp_path: Path) -> None:
    """nibabel scales floats to the header's integers: 1 of 0, 1, 2 comes back as 1.00002."""
    data = np.zeros(SHAPE, np.float32)
    data[2:4, 2:4, 2:4], data[6:8, 6:8, 6:8] = 1.0, 2.0
    image = nibabel.Nifti1Image(data, affine_of())
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "seg.nii.gz")
    assert not np.isin(nibabel.load(tmp_path / "seg.nii.gz").get_fdata(), (0, 1, 2)).all()
    mask = read_volume(tmp_path / "seg.nii.gz", labels=True)
    assert np.unique(mask.data).tolist() == [0.0, 1.0, 2.0]
    one, two = mask.label_volumes_ml(2)
    assert one == two > 0


def test_labels_above_those_of_a_byte_are_not_wrapped() -> None:
    data = np.zeros(SHAPE, np.float32)
    data[:] = 1025.0  # of an atlas
    _, grid = preprocess([Volume(make_head(), affine_of())], SETTINGS)[:2]
    assert not preprocess_labels(Volume(data, affine_of()), grid).any()


@pytest.mark.parametrize(
    ("name", "member"),
    [("0000001_20252_2_0.zip", "T1/T1.nii.gz"), ("0000001_20253_2_0.zip", "T2_FLAIR/T2_FLAIR.nii.gz")],
)
def test_the_whole_head_of_a_brain_zip_is_read(tmp_path: Path, name: str, member: str) -> None:
    image = save(tmp_path / "image.nii.gz", make_head()).read_bytes()
    other = save(tmp_path / "other.nii.gz", make_head() * 2).read_bytes()
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr(member.replace(".nii", "_brain.nii"), other)
        archive.writestr(member, image)
    assert np.array_equal(read_volume(tmp_path / name).data, make_head())
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("unusable/" + member, image)
    with pytest.raises(ScanError, match="the zip has no"):
        read_volume(tmp_path / name)


# -- to the box and back ----------------------------------------------------------------------------------------------


def test_scaling_and_offset_do_not_change_the_scores() -> None:
    data = make_head()
    one, _ = preprocess([Volume(data, affine_of())], SETTINGS)
    other, _ = preprocess([Volume(np.where(data > 0, 3 * data, 0).astype(np.float32), affine_of())], SETTINGS)
    assert one.shape == (1, *SETTINGS.size)
    assert np.allclose(one, other, atol=1e-5)
    inside = one[one != 0]
    assert abs(float(np.median(inside))) < 0.05


def test_a_missing_contrast_is_zero_and_none_is_an_error() -> None:
    out, _ = preprocess([None, Volume(make_head(), affine_of())], SETTINGS)
    assert not out[0].any()
    assert out[1].any()
    with pytest.raises(ValueError, match="at least one"):
        preprocess([None], SETTINGS)


def test_contrasts_on_other_grids_come_to_the_first_ones() -> None:
    fine = make_head((40, 48, 32))
    half = affine_of(2.0)
    half[:3, 3] = affine_of()[:3, 3] - 1.0  # both cover the same field
    out, grid = preprocess([Volume(make_head(), affine_of()), Volume(fine, half)], SETTINGS)
    both = (out[0] != 0) & (out[1] != 0)
    assert both.sum() > 0.8 * (out[0] != 0).sum()
    core = ndimage.binary_erosion(both)  # voxels of the rim are partly air
    assert np.corrcoef(out[0][core], out[1][core])[0, 1] > 0.99
    assert grid.flags == ()


def test_a_head_beyond_the_box_and_a_contrast_elsewhere_are_flagged() -> None:
    small = VolumeSettings(spacing_mm=4.0, size=(8, 8, 8))
    assert preprocess([Volume(make_head(), affine_of())], small)[1].flags == (Reason.HEAD_CUT,)
    away = affine_of()
    away[0, 3] += 200.0
    flags = preprocess([Volume(make_head(), affine_of()), Volume(make_head(), away)], SETTINGS)[1].flags
    assert Reason.NOT_ALIGNED in flags


def test_a_head_too_tall_for_the_box_loses_its_neck() -> None:
    tall = np.zeros((20, 24, 40), np.float32)
    tall[4:16, 4:20, 2:38] = 100 + np.arange(36)  # brighter upwards
    out, grid = preprocess([Volume(tall, affine_of())], SETTINGS)
    top = np.linalg.inv(affine_of()) @ grid.affine @ [0, 0, SETTINGS.size[2] - 1, 1]
    assert round(top[2]) in (37, 38)
    assert out[0].max() == out[0][:, :, -2:].max()
    assert grid.flags == (Reason.HEAD_CUT,)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_a_mask_returns_to_the_voxels_it_came_from(tmp_path: Path, codes: str) -> None:
    mask = (make_head() > 110).astype(np.uint8)
    stored, affine = stored_as(make_head(), codes)
    path = save(tmp_path / "t1.nii.gz", stored, affine)
    label = save(tmp_path / "seg.nii.gz", stored_as(mask, codes)[0], affine)
    _, grid = preprocess([read_volume(path)], SETTINGS)
    back = to_native(preprocess_labels(read_volume(label, labels=True), grid), grid)
    save_mask(back, grid, tmp_path / "out" / "mask.nii.gz")
    written, source = nibabel.load(tmp_path / "out" / "mask.nii.gz"), nibabel.load(path)
    found, expected = np.asarray(written.dataobj), np.asarray(nibabel.load(label).dataobj)
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    assert written.get_data_dtype() == np.uint8
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim"):
        assert np.array_equal(written.header[name], source.header[name]), name


def test_probabilities_return_as_numbers_between_0_and_1() -> None:
    out, grid = preprocess([Volume(make_head(), affine_of())], SETTINGS)
    probabilities = np.clip(out[0] / 8 + 0.5, 0, 1)
    back = to_native(np.stack([probabilities, 1 - probabilities]), grid, order=1)
    assert back.shape == (2, *SHAPE)
    assert back.min() >= 0
    assert back.max() <= 1
    with pytest.raises(ValueError, match="that of the input"):
        save_mask(back[0][:4], grid, Path("nowhere.nii.gz"))


def test_noise_is_0_in_a_box_larger_than_the_field_of_view() -> None:
    rng = np.random.default_rng(0)
    head = make_head((40, 48, 32))
    noisy = np.hypot(head + rng.normal(0, 6, head.shape), rng.normal(0, 6, head.shape)).astype(np.float32)
    out, _ = preprocess([Volume(noisy, affine_of())], VolumeSettings(spacing_mm=4.0, size=(60, 60, 60)))
    assert (out != 0).sum() == pytest.approx((head > 0).sum(), rel=0.05)


def test_noise_around_a_head_is_outside_its_mask() -> None:
    rng = np.random.default_rng(0)
    head = make_head((40, 48, 32))
    noisy = np.hypot(head + rng.normal(0, 6, head.shape), rng.normal(0, 6, head.shape)).astype(np.float32)
    found, truth = head_mask(noisy), head > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_rounding_does_not_move_the_border_of_a_stripped_head(seed: int) -> None:
    """Where its voxels meet those of the box, the last digit of an affine decided what is head."""
    turn = np.eye(4)
    turn[1:3, 1:3] = np.array([[4.0, -3.0], [3.0, 4.0]]) / 5
    head, affine = make_head(), turn @ affine_of()
    rounded = affine * (1 + 1e-14 * np.random.default_rng(seed).standard_normal((4, 4)))
    one, other = (preprocess([Volume(head, a)], SETTINGS)[0] for a in (affine, rounded))
    assert np.array_equal(one != 0, other != 0)
    assert np.allclose(one, other, atol=1e-4)  # scores of about 1, from float32 values
