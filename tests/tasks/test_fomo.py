"""The container's script, and a module's outputs for a suite."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support.head_files import READ, make_module, write_session
from ukb_infer.tasks.containers import ContainerConfig, run_container
from ukb_infer.tasks.fomo import find_weights, main
from ukb_infer.tasks.predict import run_benchmark_predict

SCRIPT = Path(__file__).parents[2] / "scripts" / "containers" / "fomo" / "predict.py"
INFARCT = replace(READ, modalities=(("flair",), ("dwi",), ("adc",), ("t2s", "swi")))
MENINGIOMA = replace(READ, modalities=(("flair",), ("dwi",), ("t2s", "swi")))
AGE = replace(READ, modalities=(("t1",), ("t2",)))
CONTRASTS = ("flair", "dwi_b1000", "adc", "swi", "t1", "t2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules named like their tasks."""
    folder = tmp_path_factory.mktemp("weights")
    make_module(folder / "fomo25-infarct", "class", read=INFARCT)
    make_module(folder / "fomo25-meningioma", "segmentation", read=MENINGIOMA)
    make_module(folder / "fomo25-brain-age", "mean-variance", read=AGE)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for k in (1, 2):
        write_session(folder / f"preprocessed/sub_{k}/ses_1", CONTRASTS, seed=k)
    return folder


def case(data: Path, *flags: str) -> list[str]:
    names = {"--dwi": "dwi_b1000", "--input": "t1"}
    place = data / "preprocessed/sub_1/ses_1"
    return [word for flag in flags for word in (flag, str(place / f"{names.get(flag, flag[2:])}.nii.gz"))]


STROKE = ("--flair", "--adc", "--dwi_b1000", "--swi")


@pytest.mark.parametrize(("task", "found"), [("fomo25-infarct", "*.txt"), ("fomo25-meningioma", "*.nii.gz")])
def test_the_script_passes_the_checks_of_every_container(
    task: str, found: str, weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder, with read-only inputs, in a process of its own."""
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(weights))
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[3]))
    one = Path(shutil.copytree(data / "preprocessed/sub_1", tmp_path / "data/preprocessed/sub_1"))
    report = run_container(
        ContainerConfig(image=f"{sys.executable} {SCRIPT}", data=one.parents[1], task=task, out=tmp_path / "out")
    )
    assert [(run.fault, run.message) for run in report.cases] == [(None, "")]
    assert len(list((tmp_path / "out").glob(found))) == 1


def test_the_script_writes_what_benchmark_predict_writes(
    weights: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(weights))
    report = run_benchmark_predict(str(weights / "fomo25-infarct"), data, tmp_path / "pred", device="cpu")
    assert report.exit_code == 0
    assert main([*case(data, *STROKE), "--output", str(tmp_path / "one.txt")], tmp_path) == 0
    assert (tmp_path / "one.txt").read_text() == (tmp_path / "pred" / "sub_1.txt").read_text()
    assert 0 <= float((tmp_path / "one.txt").read_text()) <= 1


def test_weights_beside_the_script(weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UKB_INFER_FOMO_WEIGHTS", raising=False)
    (tmp_path / "weights").symlink_to(weights)
    flags = ("--flair", "--dwi_b1000", "--swi")
    assert main([*case(data, *flags), "--output", str(tmp_path / "m.nii.gz")], tmp_path) == 0
    mask = nib.load(tmp_path / "m.nii.gz")
    flair = nib.load(data / "preprocessed/sub_1/ses_1/flair.nii.gz")
    assert mask.shape == flair.shape
    assert np.array_equal(mask.affine, flair.affine)


@pytest.mark.parametrize("name", ["fomo25-infarct", "fomo26-infarct"])
def test_weights_are_found_by_the_flags(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(tmp_path))
    (tmp_path / name).mkdir()
    images = dict.fromkeys(("flair", "dwi", "adc", "t2s"), tmp_path)
    assert find_weights(images, Path("x.txt"), tmp_path) == tmp_path / name


def test_of_several_weights_those_that_use_most_images_are_taken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(tmp_path))
    for name in ("fomo25-brain-age", "fomo26-brain-age", "fomo25-meningioma", "fomo25-infarct"):
        (tmp_path / name).mkdir()
    both = find_weights(dict.fromkeys(("t1", "t2"), tmp_path), Path("x.txt"), tmp_path)
    assert both.name == "fomo25-brain-age"
    assert find_weights({"t1": tmp_path}, Path("x.txt"), tmp_path).name == "fomo26-brain-age"
    stroke = dict.fromkeys(("flair", "dwi", "adc", "swi"), tmp_path)
    assert find_weights(stroke, Path("x.nii.gz"), tmp_path).name == "fomo25-meningioma"
    assert find_weights(stroke, Path("x.txt"), tmp_path).name == "fomo25-infarct"


@pytest.mark.parametrize(("flag", "suite"), [("--dwi_b1000", "fomo25"), ("--dwi", "fomo26")])
@pytest.mark.parametrize(("task", "suffix"), [("infarct", ".txt"), ("meningioma", ".nii.gz")])
def test_the_flags_tell_the_challenge(
    flag: str, suite: str, task: str, suffix: str, weights: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    """With modules of both challenges in one folder; that of the other one is damaged, so that taking it fails."""
    for name in ("fomo25", "fomo26"):
        shutil.copytree(weights / f"fomo25-{task}", tmp_path / "weights" / f"{name}-{task}")
        if name != suite:
            (tmp_path / "weights" / f"{name}-{task}" / "module.json").write_text("{}")
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(tmp_path / "weights"))
    output = tmp_path / f"sub{suffix}"
    given = case(data, "--flair", "--adc", flag, "--swi")  # FOMO25's meningioma does without the ADC
    assert main([*given, "--output", str(output)], tmp_path) == 0
    assert output.is_file()


def test_flags_of_two_tasks_need_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(tmp_path))
    for name in ("fomo26-brain-age", "fomo26-polymicrogyria"):
        (tmp_path / name).mkdir()
    image = tmp_path / "t1.nii.gz"
    image.touch()
    assert main(["--t1", str(image), "--output", str(tmp_path / "x.txt")], tmp_path) == 2
    assert "give --task" in capsys.readouterr().err
    found = find_weights({"t1": image}, tmp_path / "x.txt", tmp_path, "fomo26-polymicrogyria")
    assert found.name == "fomo26-polymicrogyria"


def test_a_pretrained_encoder_gives_embeddings(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ukb_infer.networks.encoder import EncoderSpec, build_encoder
    from ukb_infer.networks.pretrained import Pretrained, save_pretrained

    spec = EncoderSpec(dim=3, channels=1)
    settings = {"spacing_mm": READ.spacing_mm, "size": READ.size}
    save_pretrained(tmp_path, Pretrained(spec=spec, settings=settings, state=build_encoder(spec).state_dict()))
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(tmp_path))
    for name in ("one", "two"):
        assert main([*case(data, "--input"), "--output", str(tmp_path / f"{name}.npy")], tmp_path) == 0
    one, two = (np.load(tmp_path / f"{name}.npy") for name in ("one", "two"))
    assert one.ndim == 1
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.array_equal(one, two)
    report = run_benchmark_predict(str(tmp_path), data, tmp_path / "pred", device="cpu")
    assert report.exit_code == 0
    assert np.load(tmp_path / "pred/sub_1.npy").shape == one.shape
    assert main([*case(data, "--input"), "--output", str(tmp_path / "x.txt")], tmp_path) == 2


@pytest.mark.parametrize(
    "problem", ["truncated", "missing file", "missing contrast", "no weights", "no images", "a flag"]
)
def test_a_case_that_cannot_be_used_leaves_no_output(
    problem: str, weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(weights / "fomo25-infarct"))
    arguments = case(data, *STROKE)
    if problem == "truncated":
        bad = tmp_path / "flair.nii.gz"
        bad.write_bytes(Path(arguments[1]).read_bytes()[:400])
        arguments[1] = str(bad)
    elif problem == "missing file":
        arguments[1] = str(tmp_path / "none.nii.gz")
    elif problem == "missing contrast":
        arguments = case(data, "--flair", "--adc")
    elif problem == "no weights":
        monkeypatch.setenv("UKB_INFER_FOMO_WEIGHTS", str(tmp_path))
    elif problem == "a flag":
        arguments = [*arguments, "--t3", arguments[1]]
    else:
        arguments = []
    output = tmp_path / "sub.txt"
    output.write_text("0.5")  # of an earlier run
    assert main([*arguments, "--output", str(output)], tmp_path) != 0
    assert capsys.readouterr().err.startswith("predict.py: ")
    assert not output.exists()
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_flags_that_make_no_sense_leave_no_earlier_output(data: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "sub.txt"
    output.write_text("0.5")
    with pytest.raises(SystemExit) as caught:
        main(["--flair", "--adc", "x.nii.gz", "--output", str(output)], tmp_path)
    assert caught.value.code == 2
    assert not output.exists()
    assert main([*case(data, "--dwi", "--dwi_b1000"), "--output", str(output)], tmp_path) == 2
    assert "got both --dwi and --dwi_b1000" in capsys.readouterr().err


def test_the_script_shows_its_flags_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[3])},
    )  # fmt: skip
    flags = ("--flair", "--adc", "--dwi_b1000", "--dwi", "--t2s", "--swi", "--t1", "--t2", "--input", "--output")
    assert all(f"{flag} " in done.stdout for flag in flags)


def test_a_case_that_fails_is_counted(weights: Path, data: Path, tmp_path: Path) -> None:
    write_session(tmp_path / "data/preprocessed/sub_1/ses_1", ("t1", "t2"))
    write_session(tmp_path / "data/preprocessed/sub_2/ses_1", ("t1",))
    (tmp_path / "pred").mkdir()
    (tmp_path / "pred" / "sub_2.txt").write_text("33")
    report = run_benchmark_predict(str(weights / "fomo25-brain-age"), tmp_path / "data", tmp_path / "pred")
    assert report.exit_code == 3
    assert [case.code for case in report.cases] == ["", "contrast_missing"]
    assert [p.name for p in (tmp_path / "pred").glob("*.txt")] == ["sub_1.txt"]


def test_bodies_are_predicted_for_a_suite(tiny_module: Path, projections: Path, tmp_path: Path) -> None:
    report = run_benchmark_predict(str(tiny_module), projections, tmp_path / "pred", device="cpu")
    assert report.exit_code == 0
    names = sorted(p.name for p in (tmp_path / "pred").glob("*.txt"))
    assert len(names) == len(report.cases) == len(list(projections.glob("*.npy")))
    assert all(np.isfinite(float((tmp_path / "pred" / name).read_text())) for name in names)
