"""`stitch` as a run: files and rows of scans, resuming, shards, merging, retrying; and `volumetry` on what it wrote."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner, Result

import ukb_infer
from ukb_infer.cli.app import app
from ukb_infer.imaging import read_stations
from ukb_infer.inference import ProjectConfig, StitchConfig, run_stitch
from ukb_infer.phantom import write_scan
from ukb_infer.records import ReadingOptions
from ukb_infer.runs import read_scans

SCAN = "0000001_20201_2_0"
ANAT = Path("sub-0000001/ses-2/anat")
IMAGE = "sub-0000001_ses-2_acq-dixon_rec-{}_desc-fused_T1w"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def said(result: Result) -> str:
    """What a command printed, or the error it raised."""
    return result.output + (str(result.exception) if result.exception else "")


def images(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.nii.gz")}


@pytest.fixture(scope="module")
def stitched(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three scans and a broken one."""
    folder = tmp_path_factory.mktemp("stitched")
    scans = Path(shutil.copytree(small_cohort, folder / "scans"))
    (scans / "0000009_20201_2_0.zip").write_bytes(b"no zip")
    done = command("stitch", scans, "--out", folder / "run", "--contrasts", "fraction,water", "--workers", 0)
    assert done.exit_code == 3, done.output
    return folder / "run"


def test_a_run_writes_an_image_and_a_sidecar_a_contrast_and_a_row_a_scan(stitched: Path) -> None:
    rows = {row.key.scan: row.result for row in read_scans(stitched)}
    assert [r.status for r in rows.values()] == ["ok", "ok", "ok", "failed"]
    assert rows["0000009_20201_2_0"].codes == "unreadable_zip"
    assert rows[SCAN].stations == 6
    assert len(images(stitched)) == 6
    names = {p.name for p in (stitched / ANAT).iterdir()}
    stems = {f"sub-0000001_ses-2_acq-dixon_rec-{label}_desc-fused_T1w" for label in ("water", "fatfraction")}
    assert names == {stem + suffix for stem in stems for suffix in (".nii.gz", ".json")}
    assert json.loads((stitched / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert "scans.csv" in (stitched / ".bidsignore").read_text().split()
    facts = json.loads(next((stitched / ANAT).glob("*fatfraction*.json")).read_text())
    assert (facts["Units"], facts["Contrast"], len(facts["Stations"]), len(facts["Seams"])) == ("1", "fraction", 6, 5)


def test_the_images_are_those_of_the_python_api(stitched: Path) -> None:
    made = ukb_infer.stitch(stitched.parent / "scans" / f"{SCAN}.zip", contrasts=["water", "fraction"])
    for name, label in (("water", "water"), ("fraction", "fatfraction")):
        image = nibabel.load(next((stitched / ANAT).glob(f"*rec-{label}*.nii.gz")))
        found = np.asarray(image.dataobj)
        assert np.abs(found - made.image(name)).max() <= image.dataobj.slope / 2 * 1.001
    assert 0 <= found.min() <= found.max() <= 1
    assert ukb_infer.stitch(stitched.parent / "scans" / f"{SCAN}.zip", spacing=8).grid.spacing_mm == (8.0, 8.0, 8.0)


def test_it_is_continued_and_lost_files_are_made_again(stitched: Path, tmp_path: Path) -> None:
    scans, run = stitched.parent / "scans", Path(shutil.copytree(stitched, tmp_path / "run"))
    before = images(run)
    for lost in (next((run / ANAT).glob("*water*.nii.gz")), next((run / "sub-0000002").rglob("*.json"))):
        lost.unlink()
    again = ("stitch", scans, "--out", run, "--contrasts", "water,fraction", "--workers", 0)
    assert "2 of 4 scans to do" in command(*again).output
    assert images(run) == before
    assert "0 processed now" in command(*again).output
    other = command("stitch", scans, "--out", run, "--contrasts", "water", "--workers", 0)
    assert "--contrasts: water,fraction before, water now" in said(other)
    assert "stitch before, project now" in said(command("project", scans, "--out", run, "--workers", 0))
    status = command("status", run).output
    assert status.startswith("stitch: not running")
    assert "unreadable_zip" in status


def test_overwriting_leaves_no_image_of_the_run_before(stitched: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stitched, tmp_path / "run"))
    note = run / ANAT / "liver.nii.gz"
    note.write_bytes(b"drawn by hand")
    scan = stitched.parent / "scans" / f"{SCAN}.zip"
    done = command("stitch", scan, "--out", run, "--contrasts", "fat", "--workers", 0, "--overwrite")
    assert done.exit_code == 0, done.output
    assert set(images(run)) == {str(ANAT / "liver.nii.gz"), str(ANAT / f"{IMAGE.format('fat')}.nii.gz")}


def test_shards_merge_into_the_run_of_one_machine(stitched: Path, tmp_path: Path) -> None:
    scans = stitched.parent / "scans"
    for k in (1, 2):
        done = command(
            "stitch", scans, "--out", tmp_path / f"s{k}", "--shard", f"{k}/2", "--contrasts", "water,fraction",
            "--workers", 0,
        )  # fmt: skip
        assert done.exit_code in (0, 3)
    assert command("merge", tmp_path / "s1", tmp_path / "s2", "--out", tmp_path / "all").exit_code == 3
    assert images(tmp_path / "all") == images(stitched)
    for name in ("scans.csv", "dataset_description.json", ".bidsignore"):
        assert (tmp_path / "all" / name).read_bytes() == (stitched / name).read_bytes()


def test_retry_repeats_the_command(stitched: Path, tmp_path: Path) -> None:
    scans = Path(shutil.copytree(stitched.parent / "scans", tmp_path / "scans"))
    run = tmp_path / "run"
    wanted = (scans / "0000009_20201_2_0.zip", "--contrasts", "water", "--spacing", "8", "--workers", 0)
    assert command("stitch", *wanted, "--out", run).exit_code == 3
    shutil.copy(scans / f"{SCAN}.zip", scans / "0000009_20201_2_0.zip")
    assert command("retry", run).exit_code == 0
    assert [p.name for p in run.rglob("*.nii.gz")] == ["sub-0000009_ses-2_acq-dixon_rec-water_desc-fused_T1w.nii.gz"]


def test_a_dry_run_writes_nothing_and_a_projection_is_a_failed_row(small_cohort: Path, tmp_path: Path) -> None:
    done = command("stitch", small_cohort, "--out", tmp_path / "run", "--spacing", "8", "--workers", 0, "--dry-run")
    assert done.exit_code == 0
    assert "3 scans" in done.output
    assert not (tmp_path / "run").exists()
    np.save(tmp_path / f"{SCAN}.npy", np.zeros((3, 256, 256), np.uint8))
    assert run_stitch(StitchConfig((str(tmp_path / f"{SCAN}.npy"),), tmp_path / "run", workers=0)).exit_code == 3
    assert "no_dicom" in (tmp_path / "run" / "scans.csv").read_text()


def test_a_run_records_quality_and_judges_it(stitched: Path, tmp_path: Path) -> None:
    scan = stitched.parent / "scans" / f"{SCAN}.zip"
    (tmp_path / "limits.toml").write_text("[off_centre]\nabove = 0.0\n")
    (tmp_path / "required.toml").write_text('reasons = ["off_centre"]\n')
    common = ("--contrasts", "water", "--spacing", "8", "--workers", 0, "--quality", tmp_path / "limits.toml")
    assert command("stitch", scan, "--out", tmp_path / "run", *common).exit_code == 0
    with (tmp_path / "run/quality.csv").open(newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["flags"], row["level"], row["swap_3"], row["swap_3_action"]) == ("off_centre", "note", "none", "none")
    assert command("project", scan, "--out", tmp_path / "flat", "--workers", 0, *common[-2:]).exit_code == 0
    for name in ("quality.csv", "scans.csv", "dictionary.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "flat" / name).read_bytes()
    assert {"quality.csv", "dictionary.csv"} <= set((tmp_path / "run/.bidsignore").read_text().split())
    strict = (*common, "--require-quality", tmp_path / "required.toml")
    assert command("stitch", scan, "--out", tmp_path / "run", *strict).exit_code == 3


def test_fused_bodies_are_no_input_and_the_message_says_what_is(stitched: Path, tmp_path: Path) -> None:
    refused = said(command("predict", stitched, "--out", tmp_path / "run", "--modules", "phantom-demo"))
    assert "holds fused bodies that `stitch` wrote, expected scans or projections" in refused
    assert "INPUT" in refused
    assert not (tmp_path / "run").exists()


def test_volumetry_reads_the_stations_as_they_were_stitched(stitched: Path, tmp_path: Path) -> None:
    """A map on a corrected body measures the corrected stations, with the option that `stitch` was given."""
    plain = read_stations(stitched.parent / "scans" / f"{SCAN}.zip", ReadingOptions()).stations
    third = plain[2]
    swapped = write_scan(
        [*plain[:2], replace(third, water=third.fat, fat=third.water), *plain[3:]], tmp_path / "in", SCAN
    )  # fmt: skip
    good = write_scan(plain, tmp_path / "good", SCAN)
    made = ukb_infer.stitch(swapped, contrasts=["water"], spacing=8, swaps="correct")
    values = np.zeros(made.grid.shape, np.uint8)
    middle = [n // 2 for n in values.shape]
    values[middle[0] - 9 : middle[0] + 9, :, middle[2] :] = 1
    nibabel.save(nibabel.Nifti1Image(values, made.grid.affine), tmp_path / "part.nii.gz")
    found = {}
    for name, scan, mode in (("good", good, "flag"), ("flag", swapped, "flag"), ("correct", swapped, "correct")):
        done = command("volumetry", tmp_path / "part.nii.gz", "--scan", scan, "--swaps", mode)
        assert done.exit_code == 0, said(done)
        (row,) = csv.DictReader(done.stdout.splitlines())
        found[name] = float(row["mean_fat_fraction"])
        assert ("station 3 are swapped" in done.stderr) == (name != "good")
    assert found["correct"] == found["good"]
    assert abs(found["flag"] - found["good"]) > 0.05
    assert "--swaps: got 'maybe'" in said(
        command("volumetry", tmp_path / "part.nii.gz", "--scan", good, "--swaps", "maybe")
    )


@pytest.mark.slow
def test_workers_write_the_same(stitched: Path, tmp_path: Path) -> None:
    scans = stitched.parent / "scans"
    config = StitchConfig((str(scans),), tmp_path / "run", workers=2, contrasts=("water", "fraction"))
    assert run_stitch(config).exit_code == 3
    assert images(tmp_path / "run") == images(stitched)


def test_options_are_refused_in_the_words_of_the_command(small_cohort: Path, tmp_path: Path) -> None:
    given = ("stitch", small_cohort, "--out", tmp_path / "run")
    assert "--contrasts: unknown 'inphase'" in said(command(*given, "--contrasts", "water,inphase"))
    assert "--spacing: got '100', expected native, recipe or 0.5 to 10" in said(command(*given, "--spacing", "100"))
    volumes = command("project", small_cohort, "--out", tmp_path / "run", "--volumes")
    assert "--volumes: fused volumes are written by a command of their own now: ukb-infer stitch" in said(volumes)
    assert not (tmp_path / "run").exists()
    assert ProjectConfig(("x",), tmp_path).identity()["volumes"] is False  # runs of before are continued


def test_volumetry_of_a_map_drawn_on_what_stitch_wrote(stitched: Path, tmp_path: Path) -> None:
    water = nibabel.load(next((stitched / ANAT).glob("*water*.nii.gz")))
    fraction = np.asarray(nibabel.load(next((stitched / ANAT).glob("*fatfraction*.nii.gz"))).dataobj)
    body = ndimage.binary_erosion(np.asarray(water.dataobj) > 100, iterations=2)  # edges are blurred differently
    nibabel.save(nibabel.Nifti1Image(body.astype(np.uint8), water.affine), tmp_path / "body.nii.gz")
    scan = stitched.parent / "scans" / f"{SCAN}.zip"
    done = command("volumetry", tmp_path / "body.nii.gz", "--scan", scan)
    assert done.exit_code == 0, said(done)
    (row,) = csv.DictReader(done.stdout.splitlines())
    litres = float(body.sum() * np.prod(np.array(water.header.get_zooms(), float)) / 1e6)
    assert float(row["volume_litres"]) == pytest.approx(litres, rel=1e-6)
    assert float(row["mean_fat_fraction"]) == pytest.approx(float(fraction[body].mean()), abs=0.003)
    assert float(row["outside_litres"]) == 0.0
    other = stitched.parent / "scans" / "0000002_20201_2_0.zip"
    affine = water.affine.copy()
    affine[0, 3] += 1.0
    nibabel.save(nibabel.Nifti1Image(body.astype(np.uint8), affine), tmp_path / "moved.nii.gz")
    refused = command("volumetry", tmp_path / "moved.nii.gz", "--scan", other)
    assert "LABELS: does not lie on this scan" in said(refused)
    written = command("volumetry", tmp_path / "body.nii.gz", "--scan", scan, "--out", tmp_path / "body.csv")
    assert written.stdout.strip() == str(tmp_path / "body.csv")
    assert (tmp_path / "body.csv").read_text() == done.stdout
