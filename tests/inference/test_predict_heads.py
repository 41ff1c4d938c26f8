"""``predict`` with modules for volumes: sessions in any layout, tables and masks."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.support.head_files import READ, make_module, write_session
from tests.support.heads import SIZE
from ukb_infer.cli.app import app
from ukb_infer.errors import RunError, ScanError, UsageError
from ukb_infer.inference.cases import predict_case
from ukb_infer.inference.volumes import SessionFinder, session_images
from ukb_infer.modules import load_module
from ukb_infer.reasons import Reason
from ukb_infer.regression.probability import apply_curve


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three usable sessions, one without a contrast that is needed, one truncated."""
    root = tmp_path_factory.mktemp("data")
    for k in range(1, 4):
        write_session(root / f"preprocessed/sub_{k}/ses_1", ("flair", "t2s" if k == 2 else "swi"), seed=k)
    write_session(root / "preprocessed/sub_4/ses_1", ("flair", "dwi"))
    write_session(root / "preprocessed/sub_5/ses_1")
    broken = root / "preprocessed/sub_5/ses_1/swi.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    return root


def predict(*arguments: object, code: int) -> str:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments), "--workers", "0"])
    assert result.exit_code == code, result.output
    return result.output


def test_a_run_on_sessions(sessions: Path, tmp_path: Path) -> None:
    module = make_module(tmp_path / "regress", "mean-variance")
    predict(sessions, "--modules", module, "--out", tmp_path / "run", code=3)
    scans = pd.read_csv(tmp_path / "run/scans.csv").set_index("scan")
    assert list(scans.index) == [f"sub_{k}_ses_1" for k in range(1, 6)]
    assert scans["reasons"]["sub_4_ses_1"] == "contrast_missing"
    assert "t2s or swi" in scans["message"]["sub_4_ses_1"]
    assert scans["status"]["sub_5_ses_1"] == "failed"
    assert "reoriented" in scans["reasons"]["sub_1_ses_1"]
    table = pd.read_csv(tmp_path / "run/estimates.csv").set_index("scan")
    assert list(table.index) == ["sub_1_ses_1", "sub_2_ses_1", "sub_3_ses_1"]
    assert (table["lump_ci95_lower"] <= table["lump_ci95_upper"]).all()
    loaded = load_module(module)
    for k in (1, 2):
        case = predict_case(loaded, session_images(sessions / f"preprocessed/sub_{k}/ses_1", READ.modalities))
        assert case.mean["lump"] == pytest.approx(table["lump_mean"][f"sub_{k}_ses_1"], rel=1e-4, abs=1e-5)
        assert case.embedding.shape == (2 * loaded.members[0].width,)


def test_a_run_resumes_and_notices_a_new_file(sessions: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(sessions / "preprocessed", tmp_path / "data"))
    module = make_module(tmp_path / "classify", "class")
    arguments = (data, "--modules", module, "--out", tmp_path / "run")
    predict(*arguments, code=3)
    before = (tmp_path / "run/estimates.csv").read_bytes()
    assert "0 processed now" in predict(*arguments, code=3)
    assert (tmp_path / "run/estimates.csv").read_bytes() == before
    write_session(data / "sub_4/ses_1", ("flair", "swi"))
    assert "1 processed now" in predict(*arguments, code=3)
    table = pd.read_csv(tmp_path / "run/estimates.csv")
    assert len(table) == 4
    assert table["lump_probability"].between(0, 1).all()
    case = predict_case(load_module(module), session_images(data / "sub_1/ses_1", READ.modalities))
    assert case.probability["lump"] == pytest.approx(float(apply_curve((), np.array(case.mean["lump"]))))
    assert case.probability["lump"] == pytest.approx(table["lump_probability"][0], rel=1e-4)
    assert case.sd["lump"] > 0


@pytest.mark.parametrize("patch", [None, (16, 16, 16)])
def test_masks_lie_on_the_grid_of_the_first_image(
    sessions: Path, tmp_path: Path, patch: tuple[int, int, int] | None
) -> None:
    module = make_module(tmp_path / "segment", "segmentation", read=replace(READ, patch=patch))
    out = tmp_path / "run"
    predict(sessions, "--modules", module, "--out", out, code=3)
    assert sorted(p.name for p in (out / "masks").iterdir()) == [f"sub_{k}_ses_1.nii.gz" for k in (1, 2, 3)]
    mask = nibabel.load(out / "masks/sub_1_ses_1.nii.gz")
    image = nibabel.load(sessions / "preprocessed/sub_1/ses_1/flair.nii.gz")
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    values = np.asarray(mask.dataobj)
    assert set(np.unique(values)) == {0, 1}
    row = pd.read_csv(out / "estimates.csv").iloc[0]
    assert row["lump_sd"] > 0
    case = predict_case(load_module(module), session_images(sessions / "preprocessed/sub_1/ses_1", READ.modalities))
    assert np.array_equal(case.mask, values)
    case.save_mask(tmp_path / "one.nii.gz")
    assert np.array_equal(nibabel.load(tmp_path / "one.nii.gz").dataobj, values)
    predict(sessions / "preprocessed/sub_1", "--modules", module, "--out", out, "--overwrite", code=0)
    assert [p.name for p in (out / "masks").iterdir()] == ["sub_1_ses_1.nii.gz"]


def test_volumes_of_a_segmentation_are_counted_in_ml(sessions: Path, tmp_path: Path) -> None:
    module = load_module(make_module(tmp_path / "segment", "segmentation", members=1))
    import torch

    images = torch.randn(1, 2, *SIZE)
    raw = module.run(images)
    assert raw.probabilities is not None
    voxels = int((raw.probabilities[0].argmax(dim=0) == 1).sum())
    estimate = module.to_estimates(raw.heads.numpy())
    assert estimate.mean[0, 0] == pytest.approx(voxels * 0.064, rel=1e-5)
    p = raw.probabilities[0, 1].double()
    assert estimate.aleatoric[0, 0] == pytest.approx(float((p * (1 - p)).sum().clamp(min=1)) * 0.064**2, rel=1e-4)


def test_dry_run_writes_nothing(sessions: Path, tmp_path: Path) -> None:
    module = make_module(tmp_path / "regress", "mean-variance")
    text = predict(sessions, "--modules", module, "--out", tmp_path / "run", "--dry-run", code=0)
    assert "5 volumes" in text
    assert not (tmp_path / "run").exists()


def test_sessions_are_found_in_every_layout(tmp_path: Path) -> None:
    write_session(tmp_path / "bids/sub-01/ses-1/anat", ("sub-01_ses-1_FLAIR", "sub-01_ses-1_T2starw"))
    write_session(tmp_path / "fomo/set/sub_2/ses_1", ("flair", "swi_2"))
    write_session(tmp_path / "plain/sub_3", ("flair", "t2s"))
    find = SessionFinder(READ.modalities)
    names = [scan.key.scan for scan in find([str(tmp_path)])]
    assert names == ["sub-01_ses-1", "sub_2_ses_1", "sub_3"]
    for place in ("bids/sub-01/ses-1", "fomo/set/sub_2/ses_1", "plain/sub_3"):
        found = find([str(tmp_path / place)])
        assert len(found) == 1
        assert len(session_images(found[0].path, READ.modalities)) == 2
    with pytest.raises(RunError, match="no session"):
        SessionFinder((("t1",),))([str(tmp_path)])


def test_zips_of_one_visit_are_one_scan(tmp_path: Path) -> None:
    write_session(tmp_path / "made", ("t1", "flair"))
    for field, member, name in (("20252", "T1/T1.nii.gz", "t1"), ("20253", "T2_FLAIR/T2_FLAIR.nii.gz", "flair")):
        with zipfile.ZipFile(tmp_path / f"0000001_{field}_2_0.zip", "w") as archive:
            archive.write(tmp_path / f"made/{name}.nii.gz", member)
    shutil.rmtree(tmp_path / "made")
    (scan,) = SessionFinder((("t1",), ("flair",)))([str(tmp_path)])
    assert (scan.key.scan, scan.key.eid, scan.key.instance) == ("0000001_20252_2_0", "0000001", 2)
    assert set(session_images(scan.path, (("t1",), ("flair",)))) == {"t1", "flair"}
    read = replace(READ, modalities=(("t1",), ("flair",)))
    module = make_module(tmp_path / "module", "mean-variance", read=read)
    predict(tmp_path / "0000001_20252_2_0.zip", "--modules", module, "--out", tmp_path / "run", code=0)
    assert pd.read_csv(tmp_path / "run/estimates.csv", dtype=str)["eid"].tolist() == ["0000001"]


def test_a_case_without_a_contrast_is_refused(sessions: Path, tmp_path: Path) -> None:
    module = load_module(make_module(tmp_path / "regress", "mean-variance"))
    with pytest.raises(ScanError) as error:
        predict_case(module, {"flair": sessions / "preprocessed/sub_1/ses_1/flair.nii.gz"})
    assert error.value.reason is Reason.CONTRAST_MISSING


def test_options_of_projections_are_refused(sessions: Path, tmp_path: Path) -> None:
    module = make_module(tmp_path / "regress", "mean-variance")
    base = (sessions, "--modules", module, "--out", tmp_path / "run")
    for option, value in (
        ("--root", tmp_path / "no"),
        ("--projections", tmp_path / "p"),
        ("--backend", "openvino"),
        ("--swaps", "correct"),
    ):
        result = CliRunner().invoke(app, ["predict", *map(str, (*base, option, value, "--workers", 0))])
        assert isinstance(result.exception, UsageError)
        assert option in str(result.exception)


# -- lists and shards --------------------------------------------------------------------------------------------------


def test_lists_name_participants_sessions_and_paths(sessions: Path, tmp_path: Path) -> None:
    find, root = SessionFinder(READ.modalities), sessions / "preprocessed"
    listing = tmp_path / "list.txt"
    listing.write_text("sub_1\nsub_2_ses_1\nsub_9\nsub_3/ses_1\n")
    found = {scan.key.scan: scan.problem for scan in find([str(listing)], root)}
    assert found == {"sub_1_ses_1": None, "sub_2_ses_1": None, "sub_3_ses_1": None, "sub_9": Reason.INPUT_MISSING}
    with pytest.raises(UsageError, match="`root`: missing; a list of participants or scans needs the folder"):
        find([str(listing)])
    with pytest.raises(UsageError, match="is not a folder"):
        find([str(listing)], tmp_path / "nowhere")
    listing.write_text(f"{root}/sub_1\n")
    assert [scan.key.scan for scan in find([str(listing)])] == ["sub_1_ses_1"]
    image = next((root / "sub_1/ses_1").glob("*.nii.gz"))  # one image is no session
    listing.write_text(f"{image}\n{root}/sub_2\n")
    assert {scan.problem for scan in find([str(listing)])} == {Reason.INPUT_MISSING, None}
    listing.write_text("sub_1\nsub_3\n")
    module = make_module(tmp_path / "module", "class", members=1)
    predict(listing, "--root", root, "--modules", module, "--out", tmp_path / "run", code=0)
    assert list(pd.read_csv(tmp_path / "run/estimates.csv")["scan"]) == ["sub_1_ses_1", "sub_3_ses_1"]


def test_lists_name_brain_zips_by_eid_or_key(tmp_path: Path) -> None:
    for eid in (1, 2):
        for field in ("20252", "20253"):
            (tmp_path / f"zips/{eid:02d}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"zips/{eid:02d}/{eid:07d}_{field}_2_0.zip").write_bytes(b"")
    listing = tmp_path / "list.csv"
    for lines in ("eid\n1\n2\n", "scan\n0000001_20253_2_0\n0000002_20252_2_0\n"):
        listing.write_text(lines)
        found = SessionFinder((("t1",), ("flair",)))([str(listing)], tmp_path / "zips")
        assert [scan.key.scan for scan in found] == ["0000001_20252_2_0", "0000002_20252_2_0"]
        assert not any(scan.problem for scan in found)
    with pytest.raises(UsageError, match="cannot be filled in"):
        SessionFinder((("t1",),))([str(listing)], Path(f"{tmp_path}/{{visit}}.zip"))
    for path in (tmp_path / "zips").rglob("*.zip"):
        path.rename(tmp_path / path.name)
    listing.write_text("eid\n0000001\n0000003\n")
    found = SessionFinder((("t1",), ("flair",)))([str(listing)], Path(f"{tmp_path}/{{scan}}.zip"))
    assert {scan.key.scan: scan.problem for scan in found} == {
        "0000001_20252_2_0": None, "0000003": Reason.INPUT_MISSING,
    }  # fmt: skip


def test_merge_brings_the_masks_of_all_shards(sessions: Path, tmp_path: Path) -> None:
    module = make_module(tmp_path / "module", "segmentation", members=1)
    data = [sessions / f"preprocessed/sub_{k}" for k in (1, 2, 3)]
    for k in (1, 2):
        predict(*data, "--modules", module, "--out", tmp_path / f"s{k}", "--shard", f"{k}/2", code=0)
    result = CliRunner().invoke(
        app, ["merge", str(tmp_path / "s1"), str(tmp_path / "s2"), "--out", str(tmp_path / "m")]
    )
    assert result.exit_code == 0, result.output
    predict(*data, "--modules", module, "--out", tmp_path / "whole", code=0)
    names = [f"sub_{k}_ses_1.nii.gz" for k in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "m/masks").iterdir()) == names
    for name in names:
        parts = [nibabel.load(tmp_path / run / "masks" / name).get_fdata() for run in ("m", "whole")]
        assert np.array_equal(*parts)


def test_ages_of_heads_are_evaluated_by_participants_tables(tmp_path: Path) -> None:
    """A table that names participants, and ages outside the cohort of the bodies."""
    for k in range(1, 5):
        write_session(tmp_path / f"data/sub_{k}/ses_1", seed=k)
    module = make_module(tmp_path / "module", "mean-variance", members=1, target="age")
    predict(tmp_path / "data", "--modules", module, "--out", tmp_path / "run", code=0)
    rows = [f"sub_{k}\t{8 + 20 * k}\there" for k in range(1, 5)]
    (tmp_path / "participants.tsv").write_text("\n".join(["participant_id\tage\tsite", *rows]) + "\n")
    given = ["evaluate", str(tmp_path / "run"), "--labels", str(tmp_path / "participants.tsv"), "--targets", "age"]
    result = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out"), "--replicates", "0", "--no-figures"])
    assert result.exit_code == 0, result.output + str(result.exception)
    found = pd.read_csv(tmp_path / "out/metrics.csv")
    assert set(found["target"]) == {"age"}
