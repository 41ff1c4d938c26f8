"""Embeddings: heads and bodies, pretrained encoders and modules, broken scans."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from tests.support.pretraining import write_heads
from ukb_infer.cli.app import app
from ukb_infer.errors import RunError, UsageError
from ukb_infer.imaging.volumes.preprocess import VolumeSettings, preprocess
from ukb_infer.imaging.volumes.read import read_volume
from ukb_infer.inference.embed import EmbedConfig, EmbedSummary, run_embed
from ukb_infer.networks import EncoderSpec, Pretrained, build_encoder, save_pretrained


def _pretrained(folder: Path, dim: int, settings: dict[str, object]) -> Path:
    torch.manual_seed(0)
    spec = EncoderSpec(dim=dim, channels=1 if dim == 3 else 3)  # type: ignore[arg-type]
    made = Pretrained(spec=spec, settings=settings, state=build_encoder(spec).state_dict(), facts={"warning": "Toy."})
    folder.mkdir()
    save_pretrained(folder, made)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "toy"
    return _pretrained(folder, 3, {"spacing_mm": 10.0, "size": [16, 16, 16]})


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_heads(tmp_path_factory.mktemp("embed") / "heads", 3)
    (folder / "sub-0003" / "ses-1").mkdir(parents=True)
    (folder / "sub-0003" / "ses-1" / "t1.nii.gz").write_bytes(b"broken")
    return folder


def _embed(*inputs: Path, module: Path, out: Path) -> EmbedSummary:
    return run_embed(EmbedConfig(inputs=tuple(map(str, inputs)), module=str(module), out=out, device="cpu", workers=0))


def test_a_session_is_the_mean_over_its_images(heads: Path, checkpoint: Path, tmp_path: Path) -> None:
    summary = _embed(heads, module=checkpoint, out=tmp_path / "f.parquet")
    assert (summary.embedded, summary.features, summary.exit_code, summary.warning) == (3, 480, 3, "Toy.")
    assert summary.reasons == {"unreadable_nifti": 1}
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert list(table.columns[:4]) == ["scan", "participant", "session", "f0"]
    assert table["participant"].tolist() == ["sub-0000", "sub-0001", "sub-0002"]
    assert set(table["session"]) == {"ses-1"}
    failures = pd.read_csv(tmp_path / "f.failures.csv")
    assert failures[["scan", "code"]].values.tolist() == [["sub-0003_ses-1", "unreadable_nifti"]]
    paths = [heads / "sub-0001/ses-1" / f"{name}.nii.gz" for name in ("t1", "t2")]
    boxed, _ = preprocess([read_volume(path) for path in paths], VolumeSettings(spacing_mm=10.0, size=(16, 16, 16)))
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec(dim=3, channels=1)).eval()
    with torch.inference_mode():
        expected = encoder.pool(encoder(torch.from_numpy(boxed[:, None]))).mean(dim=0).numpy()
    assert np.allclose(table.iloc[1, 3:].to_numpy(np.float32), expected, atol=1e-5)


def test_one_image_of_any_name_becomes_a_vector(heads: Path, checkpoint: Path, tmp_path: Path) -> None:
    image = nib.load(heads / "sub-0000/ses-1/t1.nii.gz")
    nib.save(image, tmp_path / "anything.nii.gz")
    _embed(tmp_path / "anything.nii.gz", module=checkpoint, out=tmp_path / "v.npy")
    vector = np.load(tmp_path / "v.npy")
    assert (vector.shape, vector.dtype) == ((480,), np.float32)
    assert np.isfinite(vector).all()
    with pytest.raises(UsageError, match=r"`out`: got 'w.npy', expected .*csv for 4 scans"):
        _embed(heads, module=checkpoint, out=tmp_path / "w.npy")


def test_projections_of_bodies_by_encoder_and_module(tiny_module: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    for name in ("0000001_20201_2_0", "0000001_20201_3_0"):
        np.save(tmp_path / "p" / f"{name}.npy", rng.integers(0, 255, (3, 256, 256), dtype=np.uint8))
    weights = _pretrained(tmp_path / "w", 2, {"scale": 1 / 64, "offset": -1.0, "size": [64, 64]})
    assert _embed(tmp_path / "p", module=weights, out=tmp_path / "a.csv").exit_code == 0
    table = pd.read_csv(tmp_path / "a.csv", dtype={"participant": str, "session": str})
    assert table[["participant", "session"]].values.tolist() == [["0000001", "2"], ["0000001", "3"]]
    assert not (tmp_path / "a.failures.csv").exists()
    summary = _embed(tmp_path / "p", module=tiny_module, out=tmp_path / "b.csv")
    lengths = np.linalg.norm(pd.read_csv(tmp_path / "b.csv").iloc[:, 3:], axis=1)
    assert summary.features == 2 * 576  # two members side by side, each of length one
    assert lengths == pytest.approx([2**0.5] * 2, rel=1e-5)


def test_what_cannot_be_done_is_said_before_anything_is_read(heads: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`out`: got 'f.txt'"):
        _embed(heads, module=checkpoint, out=tmp_path / "f.txt")
    with pytest.raises(UsageError, match="a folder that exists"):
        _embed(heads, module=checkpoint, out=tmp_path / "no" / "f.csv")
    (tmp_path / "f.csv").write_text("mine")
    with pytest.raises(UsageError, match="`overwrite`"):
        _embed(heads, module=checkpoint, out=tmp_path / "f.csv")
    with pytest.raises(UsageError, match=r"'brain-pretraind': .* nor one of: brain-contrastive, brain-pre") as caught:
        _embed(heads, module=Path("brain-pretraind"), out=tmp_path / "g.csv")
    assert "MIMIR" not in str(caught.value)
    with pytest.raises(RunError, match=r"no scan could be embedded \(1 unreadable_nifti\)"):
        _embed(heads / "sub-0003", module=checkpoint, out=tmp_path / "g.csv")
    assert not (tmp_path / "g.csv").exists()


def test_an_encoder_of_the_other_kind_says_what_it_sees(heads: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p/0000001_20201_2_0.npy", np.arange(3 * 256 * 256, dtype=np.uint8).reshape(3, 256, 256))
    with pytest.raises(RunError, match="sees volumes of heads, and the inputs have none: no session in"):
        _embed(tmp_path / "p", module=checkpoint, out=tmp_path / "a.csv")
    bodies = _pretrained(tmp_path / "w", 2, {"scale": 1 / 64, "offset": -1.0, "size": [64, 64]})
    with pytest.raises(RunError, match="sees scans or projections of bodies"):
        _embed(heads, module=bodies, out=tmp_path / "a.csv")


def test_the_command_reports_what_it_left_out(heads: Path, checkpoint: Path, tmp_path: Path) -> None:
    given = ["embed", str(heads), "--module", str(checkpoint), "--out", str(tmp_path / "f.csv"), "--workers", "0"]
    result = CliRunner().invoke(app, [*given, "--device", "cpu"])
    assert result.exit_code == 3, result.output
    assert "3 scans with 480 features" in result.output
    assert "unreadable_nifti" in result.output
    assert "WARNING Toy." in result.output
