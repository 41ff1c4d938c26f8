"""Data sets: layouts, the table of images, its division, and cases."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ukb_infer.errors import RunError, UsageError
from ukb_infer.imaging.datasets import ImageRow, index_dataset, read_cases, read_images, write_images
from ukb_infer.imaging.datasets.dataset import make_dataset
from ukb_infer.imaging.datasets.index import divide
from ukb_infer.imaging.datasets.participants import read_participants
from ukb_infer.reasons import Reason

DATA = np.arange(6 * 7 * 5, dtype=np.int16).reshape(6, 7, 5)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def put(folder: Path, name: str, data: np.ndarray = DATA) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)
    return path


def list_participants(folder: Path, *names: str, columns: str = "age\tsex\tsite", row: str = "61\tF\tsite_a") -> None:
    lines = [f"participant_id\t{columns}", *(f"{name}\t{row}" for name in names)]
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")


def keys(rows: list[ImageRow]) -> list[tuple[str, str, str, str]]:
    return [(r.dataset, r.participant, r.session, r.modality) for r in rows]


def test_the_layout_of_fomo60k(tmp_path: Path) -> None:
    root = tmp_path / "FOMO60K"
    for name in ("PT001_A/sub_0001/ses_1/t1.nii.gz", "PT001_A/sub_0001/ses_1/t1_2.nii.gz",
                 "PT001_A/sub_0001/ses_2/flair.nii.gz", "PT002_B/sub_0001/ses_1/ct.nii.gz"):  # fmt: skip
        put(root, name)
    list_participants(root / "PT001_A", "sub_0001")
    rows = index_dataset(root)
    assert keys(rows) == [
        ("PT001_A", "sub_0001", "ses_1", "t1"), ("PT001_A", "sub_0001", "ses_1", "t1"),
        ("PT001_A", "sub_0001", "ses_2", "flair"), ("PT002_B", "sub_0001", "ses_1", "ct"),
    ]  # fmt: skip
    assert [(r.status, r.codes) for r in rows] == [("ok", ())] * 3 + [("flagged", (Reason.PARTICIPANTS_MISSING,))]
    assert {r.split for r in rows} == {"train"}
    assert all(r.path.is_absolute() for r in rows)


def test_the_layout_of_bids_and_what_is_no_image(tmp_path: Path) -> None:
    for name in ("sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_ce-gd_T1w.nii.gz",
                 "sub-02/anat/sub-02_T2starw.nii", "sub-02/anat/sub-02_label-lesion_mask.nii.gz",
                 "derivatives/x/sub-02/sub-02_T1w.nii.gz", "sub-02/.hidden.nii.gz",
                 "sub-03/ses-2/anat/sub-03_ses-2_acq-dixon_rec-water_desc-fused_T1w.nii.gz"):  # fmt: skip
        put(tmp_path, name)
    list_participants(tmp_path, "sub-01", "02")
    rows = index_dataset(tmp_path)
    assert [(r.participant, r.session, r.modality, r.status) for r in rows] == [
        ("sub-01", "ses-2", "t1", "ok"), ("sub-01", "ses-2", "t1c", "ok"), ("sub-02", "", "t2s", "ok"),
    ]  # fmt: skip


def test_brain_zips_and_projections(tmp_path: Path) -> None:
    image = put(tmp_path / "other", "x.nii.gz").read_bytes()
    shutil.rmtree(tmp_path / "other")
    for field, member in (("20252", "T1/T1.nii.gz"), ("20253", "T2_FLAIR/T2_FLAIR.nii.gz")):
        with zipfile.ZipFile(tmp_path / f"0000007_{field}_2_0.zip", "w") as archive:
            archive.writestr(member, image)
    (tmp_path / "0000008_20252_3_0.zip").write_bytes(b"PK\3\4 truncated")
    (tmp_path / "0000008_20201_2_0.zip").write_bytes(b"a body, not a brain")
    projection = np.arange(3 * 256 * 256, dtype=np.uint64).astype(np.uint8).reshape(3, 256, 256)
    np.save(tmp_path / "0000009_20201_2_0.npy", projection)
    np.save(tmp_path / "0000010_20201_2_0.npy", np.zeros((3, 256, 256), np.uint8))
    rows = index_dataset(tmp_path)
    assert [(r.participant, r.session, r.modality, r.status, r.codes) for r in rows] == [
        ("0000007", "ses-2", "flair", "ok", ()),
        ("0000007", "ses-2", "t1", "ok", ()),
        ("0000008", "ses-3", "t1", "failed", (Reason.UNREADABLE_ZIP,)),
        ("0000009", "ses-2", "projection", "ok", ()),
        ("0000010", "ses-2", "projection", "failed", (Reason.EMPTY_IMAGE,)),
    ]
    assert [r.split for r in rows] == ["train", "train", "", "train", ""]


def test_broken_files_are_rows_with_codes(tmp_path: Path) -> None:
    folder = "sub_0001/ses_1/"
    cut = put(tmp_path, folder + "t1.nii.gz")
    cut.write_bytes(cut.read_bytes()[:-20])
    put(tmp_path, folder + "t2.nii.gz", np.stack([DATA] * 3, axis=3))
    put(tmp_path, folder + "flair.nii.gz", np.full(DATA.shape, np.nan, np.float32))
    put(tmp_path, folder + "dwi.nii.gz", np.ones_like(DATA))
    zero = put(tmp_path, folder + "adc.nii.gz")
    raw = bytearray(gzip.decompress(zero.read_bytes()))
    raw[252:256], raw[280:328] = b"\0\0\1\0", bytes(48)
    zero.write_bytes(gzip.compress(bytes(raw)))
    nibabel.save(nibabel.Nifti1Image(DATA, np.diag([-4.0, 4.0, 4.0, 1.0])), tmp_path / folder / "t2s.nii.gz")
    tilt = AFFINE.copy()
    tilt[:2, :2] = 4 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    nibabel.save(nibabel.Nifti1Image(DATA, tilt), tmp_path / folder / "swi.nii.gz")
    put(tmp_path, folder + "pd.nii.gz")
    missing = Reason.PARTICIPANTS_MISSING
    assert {r.modality: (r.status, r.codes) for r in index_dataset(tmp_path)} == {
        "t1": ("failed", (Reason.UNREADABLE_NIFTI, missing)),
        "t2": ("failed", (Reason.SEVERAL_VOLUMES, missing)),
        "flair": ("failed", (Reason.NON_FINITE_VALUES, missing)),
        "dwi": ("failed", (Reason.EMPTY_IMAGE, missing)),
        "adc": ("failed", (Reason.MISSING_AFFINE, missing)),
        "t2s": ("flagged", (Reason.REORIENTED, missing)),
        "swi": ("flagged", (Reason.TILTED, missing)),
        "pd": ("flagged", (missing,)),
    }


def made_rows(count: int) -> list[ImageRow]:
    return [
        ImageRow(dataset="d", participant=f"sub_{n:04d}", session=f"ses_{visit}", modality="t1",
                 path=Path(f"/x/{n}_{visit}"), status="ok")
        for n in range(count) for visit in (1, 2)
    ]  # fmt: skip


def test_the_division_is_by_participant_and_by_seed() -> None:
    rows = divide(made_rows(300), 0.2, seed=3)
    sides = {r.participant: {x.split for x in rows if x.participant == r.participant} for r in rows}
    assert all(len(found) == 1 for found in sides.values())
    share = sum(found == {"validation"} for found in sides.values()) / 300
    assert 0.13 < share < 0.27  # three standard errors
    assert rows == divide(made_rows(300), 0.2, seed=3)
    assert rows != divide(made_rows(300), 0.2, seed=4)
    assert rows[:200] == divide(made_rows(100), 0.2, seed=3)  # more participants change nobody's side
    assert {r.split for r in divide(made_rows(2), 0.01, seed=0)} == {"train", "validation"}


def test_the_table_is_read_as_written(tmp_path: Path) -> None:
    put(tmp_path / "data", "sub_0001/ses_1/t1.nii.gz")
    rows = index_dataset(tmp_path / "data", validation=0.5)
    write_images(rows, tmp_path / "out" / "images.csv")
    assert read_images(tmp_path / "out") == read_images(tmp_path / "out" / "images.csv") == rows
    assert keys(read_images(tmp_path / "data")) == keys(rows)
    table = tmp_path / "out" / "images.csv"
    table.write_text(table.read_text(), encoding="utf-8-sig")  # as a spreadsheet saves it
    assert read_images(table) == rows
    (tmp_path / "wrong.csv").write_text("scan,path\n1,2\n")
    with pytest.raises(UsageError, match="ukb-infer dataset"):
        read_images(tmp_path / "wrong.csv")


@pytest.mark.parametrize(("folder", "share"), [("nowhere", 0.1), (".", 0.1), (".", 1.0), (".", -0.1)])
def test_what_cannot_be_indexed(tmp_path: Path, folder: str, share: float) -> None:
    with pytest.raises(UsageError):
        index_dataset(tmp_path / folder, validation=share)


# -- cases -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(tmp_path: Path) -> None:
    put(tmp_path / "pool/sub_1/ses_1", "t1.nii.gz")
    (tmp_path / "file").write_text("")
    told: list[int] = []
    with pytest.raises(RunError, match=r"`out` .* cannot be written"):
        make_dataset(tmp_path / "pool", tmp_path / "file/out", progress=lambda *counts: told.extend(counts))
    assert not told


def test_a_folder_without_images_is_named_by_the_caller_argument(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^`data`: got .* without images"):
        read_images(tmp_path)


def test_cases_of_the_finetuning_layout(tmp_path: Path) -> None:
    for sub in ("sub_0001", "sub_0002", "sub_0003"):
        put(tmp_path, f"preprocessed/{sub}/ses_1/flair.nii.gz")
        put(tmp_path, f"preprocessed/{sub}/ses_1/t1.nii.gz")
    swi = put(tmp_path, "preprocessed/sub_0001/ses_1/swi.nii.gz")
    seg = put(tmp_path, "labels/sub_0001/ses_1/seg.nii.gz")
    (tmp_path / "labels" / "sub_0002").mkdir()
    (tmp_path / "labels" / "sub_0002" / "label.txt").write_text("1\n")
    list_participants(tmp_path, "sub_0001", "sub_0002")
    cases = read_cases(tmp_path, (("flair",), ("t2s", "swi")))
    assert [c.participant for c in cases] == ["sub_0001", "sub_0002", "sub_0003"]
    assert cases[0].images["swi"] == swi
    assert set(cases[1].images) == {"flair"}
    assert [c.label and c.label.name for c in cases] == [seg.name, "label.txt", None]
    assert [c.value for c in cases] == [None, 1.0, None]
    assert cases[0].groups == {"age": "61", "sex": "F", "site": "site_a"}
    assert cases[2].groups == {}
    assert read_cases(tmp_path / "preprocessed", (("flair",),))[1].value == 1.0
    (tmp_path / "labels" / "sub_0002" / "label.txt").write_text("yes\n")
    with pytest.raises(UsageError, match="one number"):
        read_cases(tmp_path, (("flair",),))
    with pytest.raises(UsageError, match="adc"):
        read_cases(tmp_path, (("adc",),))


def test_values_from_participants_and_from_a_table(tmp_path: Path) -> None:
    put(tmp_path, "sub-0000001/ses-2/anat/sub-0000001_ses-2_T1w.nii.gz")
    list_participants(tmp_path, "sub-0000001")
    assert [c.value for c in read_cases(tmp_path, (("t1",),), column="age")] == [61.0]
    np.save(tmp_path / "0000005_20201_2_0.npy", np.zeros((3, 256, 256), np.uint8))
    (tmp_path / "labels.csv").write_text("eid,age\n5,70.5\n")
    table = tmp_path / "labels.csv"
    assert [c.value for c in read_cases(tmp_path, (("projection",),), labels=table, column="age")] == [70.5]
    table.write_text(
        "participant_id;age;note\n0000005;70,25;a, b\n6;n/a;1,5\n", encoding="utf-8-sig"
    )  # of a spreadsheet
    assert [c.value for c in read_cases(tmp_path, (("projection",),), labels=table, column="age")] == [70.25]
    assert read_participants(table)["0000005"]["note"] == "a, b"
    with pytest.raises(UsageError, match="no column 'weight'"):
        read_cases(tmp_path, (("t1",),), labels=table, column="weight")
