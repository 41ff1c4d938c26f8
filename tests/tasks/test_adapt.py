"""``adapt``: labelled cases to a module that ``predict`` uses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from tests.support.cases import write_cases
from tests.support.heads import SIZE
from ukb_infer.cli.app import app
from ukb_infer.errors import UsageError
from ukb_infer.modules import load_module, read_manifest
from ukb_infer.networks import EncoderSpec, Pretrained, build_encoder, save_pretrained
from ukb_infer.tasks.adapt import make_request, run_adapt
from ukb_infer.tasks.files import find_task
from ukb_infer.training.finetune.packing import draw_shots

TASK = """
name = "lumps"
output = "{output}"
inputs = ["flair", ["t2s", "swi"]]

[target]
name = "lump"
unit = "{unit}"
lower = 0
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("cases"))


def write_task(folder: Path, output: str, unit: str = "") -> str:
    path = folder / f"{output}.toml"
    path.write_text(TASK.format(output=output, unit=unit))
    return str(path)


def make_checkpoint(folder: Path, dim: int = 3) -> Path:
    """An untrained encoder of one channel, of the tests' box."""
    torch.manual_seed(3)
    encoder = build_encoder(EncoderSpec(dim=dim, channels=1 if dim == 3 else 3))  # type: ignore[arg-type]
    folder.mkdir()
    settings = {"spacing_mm": 4.0, "size": list(SIZE)}
    if dim == 2:
        settings = {"scale": 1 / 64, "offset": -1.0, "size": [64, 64]}
    facts = {"warning": "Made for tests."}
    save_pretrained(folder, Pretrained(spec=encoder.spec, settings=settings, state=encoder.state_dict(), facts=facts))
    return folder


def adapt(task: str, data: Path, out: Path, **settings: object):  # type: ignore[no-untyped-def]
    lines: list[str] = []
    given = {"folds": 2, "steps": 4, "processes": 1, "threads": 1, "device": "cpu"} | settings
    manifest = run_adapt(task, data, out, say=lines.append, show=False, **given)
    return manifest, "\n".join(lines)


@pytest.mark.parametrize("output", ["class", "segmentation", "regression"])
def test_every_output_becomes_a_module(output: str, cases: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    task = write_task(tmp_path, output, "ml" if output == "segmentation" else "")
    manifest, said = adapt(task, cases, tmp_path / "module", pretrained=checkpoint)
    assert "12 of 12 labelled cases" in said
    assert "% of the weights come from" in said
    assert "out of fold: lump, 12 cases" in said
    assert manifest == read_manifest(tmp_path / "module")
    assert manifest.input.size == SIZE
    assert manifest.training["transferred"] > 0.3
    apart = output != "segmentation"  # each contrast is seen alone, and the head is fitted before the first step
    assert manifest.network.encoder == ("conv_small_apart" if apart else "conv_small")
    assert manifest.training.get("probe_first", False) == apart
    assert "Made for tests." in manifest.warning
    assert (tmp_path / "module/README.md").read_text().startswith("# module")
    module = load_module(tmp_path / "module")
    assert len(module.members) == 2
    calibration = manifest.targets[0].calibration
    assert calibration.curve if output == "class" else calibration.factor != 1.0
    arguments = ["predict", str(cases / "preprocessed"), "--modules", str(tmp_path / "module"), "--workers", "0"]
    assert CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")]).exit_code == 0
    table = pd.read_csv(tmp_path / "run/estimates.csv")
    assert len(table) == 12
    assert np.isfinite(table["lump_probability" if output == "class" else "lump_sd"]).all()
    assert (tmp_path / "run/masks").is_dir() == (output == "segmentation")


@pytest.mark.parametrize("start", ["random", "checkpoint"])
def test_a_stopped_adaptation_resumes_to_the_same_weights(start: str, cases: Path, tmp_path: Path, monkeypatch) -> None:
    from ukb_infer.training.trainer import Trainer

    task, given = write_task(tmp_path, "class"), {"steps": 20}
    if start == "checkpoint":
        given["pretrained"] = make_checkpoint(tmp_path / "ckpt")
    adapt(task, cases, tmp_path / "whole", **given)
    validate = Trainer._validate

    def stop(self: Trainer, loss: float) -> None:
        validate(self, loss)
        if self.iteration == 8:
            self.save()
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_validate", stop)
    with pytest.raises(KeyboardInterrupt):
        adapt(task, cases, tmp_path / "cut", **given)
    monkeypatch.undo()
    adapt(task, cases, tmp_path / "cut", **given)
    for name in ("member1.safetensors", "member2.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_other_settings_in_the_same_work_folder_are_refused(cases: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path, "class")
    adapt(task, cases, tmp_path / "module", work=tmp_path / "work")
    packed = (tmp_path / "work/volumes.npy").stat().st_mtime_ns
    with pytest.raises(UsageError, match=r"shots was all, now 6.*the cases have changed"):
        adapt(task, cases, tmp_path / "other", work=tmp_path / "work", shots=6)
    assert (tmp_path / "work/volumes.npy").stat().st_mtime_ns == packed
    with pytest.raises(UsageError, match="contains a finished module"):
        adapt(task, cases, tmp_path / "module", work=tmp_path / "work")
    adapt(task, cases, tmp_path / "module", work=tmp_path / "work", shots=6, overwrite=True)
    assert read_manifest(tmp_path / "module").training["shots"] == 6


def test_ages_come_from_a_table(cases: Path, tmp_path: Path) -> None:
    path = tmp_path / "age.toml"
    path.write_text('name = "age"\noutput = "regression"\ninputs = ["flair"]\n[target]\nname = "age"\nunit = "years"\n')
    manifest, _ = adapt(str(path), cases / "preprocessed", tmp_path / "a", labels=cases / "participants.tsv")
    assert 40 < manifest.targets[0].mean < 80
    assert manifest.input.form.channels == ("flair",)


def test_cases_that_cannot_be_used_are_left_out(cases: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(cases, tmp_path / "data"))
    (data / "preprocessed/sub_00/ses_1/swi.nii.gz").unlink()
    (data / "labels/sub_01/ses_1/label.txt").unlink()
    broken = data / "preprocessed/sub_02/ses_1/swi.nii.gz"
    broken.write_bytes(broken.read_bytes()[:300])
    task = write_task(tmp_path, "class")
    manifest, said = adapt(task, data, tmp_path / "module")
    assert "1 cases are left out: without t2s or swi" in said
    assert "1 cases are left out: without label" in said
    assert "1 cases cannot be used" in said
    assert manifest.training["cases"] == 9


def test_a_dry_run_writes_nothing(cases: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    task = write_task(tmp_path, "segmentation")
    arguments = ["adapt", "--task", task, "--data", str(cases), "--out", str(tmp_path / "module"), "--dry-run"]
    result = CliRunner().invoke(app, [*arguments, "--pretrained", str(checkpoint), "--shots", "8"])
    assert result.exit_code == 0, result.output
    assert "8 of 12 labelled cases" in result.output
    assert "5 networks of 300 steps would be trained" in result.output
    assert not list(tmp_path.glob("module*"))


def test_networks_in_parallel_are_workers_too(cases: Path, tmp_path: Path) -> None:
    given = ["adapt", "--task", write_task(tmp_path, "class"), "--data", str(cases), "--out", str(tmp_path / "m")]
    for option in ("--workers", "--processes"):
        result = CliRunner().invoke(app, [*given, option, "1", "--dry-run"])
        assert result.exit_code == 0, result.output


def test_shots_keep_classes_and_nest() -> None:
    labels = np.array([1.0] * 6 + [0.0] * 24)
    people = np.array([f"p{k:02d}" for k in range(30)])
    few, more = (draw_shots(labels, people, n, 0, by_class=True) for n in (10, 20))
    assert set(few) <= set(more)
    assert labels[few].sum() == 2
    assert set(draw_shots(labels, people, 10, 1, by_class=True)) != set(few)
    assert all(labels[draw_shots(labels, people, 2, seed, by_class=True)].sum() == 1 for seed in range(9))
    with pytest.raises(UsageError, match="at most 30"):
        draw_shots(labels, people, 31, 0, by_class=False)
    with pytest.raises(UsageError, match=r"`shots`: got 1, expected 2 or more"):
        draw_shots(labels, people, 1, 0, by_class=True)
    labels[:3] = np.nan  # known of another target only
    assert np.nansum(labels[draw_shots(labels, people, 10, 0, by_class=True)]) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pretrained": "base"}, "holds a small encoder in 2 dimensions"),
        ({"folds": 1}, "`folds`: got 1, expected 2 or more"),
        ({"preset": "smal"}, "did you mean small"),
        ({"augment": "everything"}, "choices: auto, none"),
        ({"shots": 13}, "at most 12"),
    ],
)
def test_what_cannot_be_adapted_is_said(changes: dict[str, object], words: str, cases: Path, tmp_path: Path) -> None:
    if "pretrained" in changes:
        changes = {"pretrained": make_checkpoint(tmp_path / "flat", dim=2)}
    with pytest.raises(UsageError, match=words):
        adapt(write_task(tmp_path, "class"), cases, tmp_path / "module", **changes)


def test_outlines_that_are_none_are_left_out_with_a_reason(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "cases", 10)

    def change(number: int, change: Callable[[np.ndarray], np.ndarray], shift_mm: float = 0.0) -> None:
        path = data / f"labels/sub_{number:02d}/ses_1/seg.nii.gz"
        image = nib.load(path)
        values, affine = change(np.asarray(image.dataobj)), image.affine.copy()
        affine[:3, 3] += shift_mm
        nib.save(nib.Nifti1Image(values, affine), path)

    change(0, lambda mask: (mask * 255).astype(np.uint8))
    change(2, lambda mask: (mask * 0.5).astype(np.float32))
    change(4, lambda mask: mask, shift_mm=500.0)
    change(6, lambda mask: mask[:-1])  # of another shape in the same space: used
    manifest, said = adapt(write_task(tmp_path, "segmentation", "ml"), data, tmp_path / "module", steps=1)
    assert "2 cases cannot be used: not_labels" in said
    assert "1 cases cannot be used: mask_elsewhere" in said
    assert manifest.training["cases"] == 7


def test_too_few_cases_for_the_folds_or_of_a_class_are_said_before_training(tmp_path: Path) -> None:
    data, task = write_cases(tmp_path / "cases", 4), write_task(tmp_path, "class")
    with pytest.raises(UsageError, match=r"`folds`: got 5, expected 2 to the number of participants \(4\)"):
        adapt(task, data, tmp_path / "module", folds=5, dry_run=True)
    (data / "labels/sub_00/ses_1/label.txt").write_text("1\n", encoding="utf-8-sig")  # as Windows programs write it
    for number in (1, 3):
        (data / f"preprocessed/sub_{number:02d}/ses_1/flair.nii.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="expected 0 and 1, both of them"):
        adapt(task, data, tmp_path / "module")


def test_tasks_are_read_strictly(tmp_path: Path) -> None:
    task = find_task(write_task(tmp_path, "segmentation", "ml"))
    assert (task.name, task.inputs, task.metrics) == ("lumps", (("flair",), ("t2s", "swi")), ("dice", "nsd"))
    assert task.targets[0].lower == 0
    good = TASK.format(output="class", unit="")
    for text, words in (
        (good.replace("class", "classs"), "output: got 'classs'"),
        ("shots = 3" + good, "shots: no such setting"),
        ("dimension = '3'" + good, "dimension"),
        (good.replace("lower", "lowest"), "lowest: no such setting"),
        (good + "upper = 0", "lower: got 0.* less than upper"),
        (good.replace("[target]", "[[target]]") + '[[target]]\nname = "lump"', "lump twice"),
        ("target = []" + good[: good.index("[target]")], "target: got 'none'"),
        (re.sub("inputs = .*", "inputs = [[]]", good), "inputs"),
        ("inputs = ", "TOML"),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            find_task(str(path))
    with pytest.raises(UsageError, match="did you mean brain-age"):
        find_task("brain-aeg")
    with pytest.raises(UsageError, match="nothing to learn"):
        make_request("fomo26-probe", tmp_path, tmp_path / "m")
    with pytest.raises(UsageError, match="`labels`: missing"):
        make_request("body-vat", tmp_path, tmp_path / "m")


def test_a_body_task_makes_a_module_for_projections(tmp_path: Path) -> None:
    from tests.support.training import make_data

    data = make_data(16)
    (tmp_path / "projections").mkdir()
    rows = ["eid,type2Diabetes"]
    for k, image in enumerate(data.images):
        np.save(tmp_path / f"projections/{k + 1:07d}_20201_2_0.npy", image)
        rows.append(f"{k + 1:07d},{k % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    checkpoint = make_checkpoint(tmp_path / "ckpt", dim=2)
    manifest, said = adapt(
        "body-diabetes", tmp_path / "projections", tmp_path / "module", labels=tmp_path / "labels.csv", shots=12,
        pretrained=checkpoint,
    )  # fmt: skip
    assert "12 of 16 labelled cases" in said
    assert (manifest.network.head, manifest.network.dimension) == ("class", 2)
    assert manifest.input.size == (64, 64)
    text = json.dumps(manifest.to_dict())
    assert 'label"' not in text
    arguments = ["predict", str(tmp_path / "projections"), "--modules", str(tmp_path / "module"), "--workers", "0"]
    assert CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")]).exit_code == 0
    table = pd.read_csv(tmp_path / "run/estimates.csv")
    assert table["type2Diabetes_probability"].between(0, 1).all()
    assert len(table) == 16


@pytest.mark.gpu
@pytest.mark.parametrize("output", ["class", "segmentation", "regression"])
@pytest.mark.parametrize("start", ["random", "checkpoint"])
def test_a_gpu_adapts_and_predicts(output: str, start: str, cases: Path, tmp_path: Path) -> None:
    given = {"pretrained": make_checkpoint(tmp_path / "ckpt")} if start == "checkpoint" else {}
    manifest, _ = adapt(write_task(tmp_path, output), cases, tmp_path / "module", device="cuda", **given)
    arguments = ["predict", str(cases / "preprocessed"), "--modules", str(tmp_path / "module"), "--device", "cuda"]
    assert CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")]).exit_code == 0
    assert len(pd.read_csv(tmp_path / "run/estimates.csv")) == 12
    assert manifest.network.head == ("mean-variance" if output == "regression" else output)


def test_a_shipped_checkpoint_is_found_by_name(cases: Path, tmp_path: Path, monkeypatch) -> None:
    make_checkpoint(tmp_path / "shipped-encoder")
    monkeypatch.setattr("ukb_infer.tasks.adapt.shipped_modules_folder", lambda: tmp_path)
    request = make_request("brain-age", cases, tmp_path / "m", pretrained=Path("shipped-encoder"))
    assert request.pretrained == tmp_path / "shipped-encoder"
    with pytest.raises(UsageError, match=r"no checkpoint 'elsewhere': .* nor one of: brain-contrastive, brain-pre"):
        make_request("brain-age", cases, tmp_path / "m", pretrained=Path("elsewhere"))


@pytest.mark.slow
def test_from_synthetic_heads_to_masks(tmp_path: Path) -> None:
    """The whole path with several processes: heads of two sites, a short adaptation, prediction at a third."""
    from ukb_infer.phantom.heads.cohort import write_heads

    write_heads(tmp_path / "train", "meningioma", 4, 0, sites=("site_a", "site_b"), size="small")
    write_heads(tmp_path / "test", "meningioma", 1, 1, sites=("site_d",), size="small")
    manifest, said = adapt(
        "fomo25-meningioma", tmp_path / "train", tmp_path / "module", steps=4, processes=2
    )  # fmt: skip
    assert "Dice" in said
    assert manifest.input.patch == (32, 32, 32)
    arguments = ["predict", str(tmp_path / "test"), "--modules", str(tmp_path / "module"), "--workers", "2"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "run/estimates.csv")
    assert list(table["scan"]) == ["sub_0001_ses_1"]
    assert len(list((tmp_path / "run/masks").glob("*.nii.gz"))) == 1
    assert np.isfinite(table["meningioma_sd"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trigeminal", "polymicrogyria"])
def test_tasks_of_fomo26_from_heads_to_scores(name: str, tmp_path: Path) -> None:
    """A short adaptation, outputs for other heads in the suite's files, and their scores."""
    from ukb_infer.phantom.heads.cohort import write_heads

    for folder, count, seed in (("train", 6, 0), ("test", 4, 1)):
        write_heads(tmp_path / folder, name, count, seed, sites=("site_a",), size="small")
    manifest, said = adapt(f"fomo26-{name}", tmp_path / "train", tmp_path / "module", steps=2, augment="none")
    given = ["--module", str(tmp_path / "module"), "--data", str(tmp_path / "test"), "--out", str(tmp_path / "pred")]
    result = CliRunner().invoke(app, ["benchmark", "predict", *given, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    given = ["--suite", "fomo26", "--task", f"fomo26-{name}", "--out", str(tmp_path / "scores")]
    result = CliRunner().invoke(
        app, ["benchmark", "score", str(tmp_path / "pred"), "--labels", str(tmp_path / "test"), *given]
    )
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(tmp_path / "scores/scores.csv").set_index("metric")
    assert (scores["n"] == 4).all()
    assert (scores["missing"] == 0).all()
    assert scores.drop(index="fairness", errors="ignore")["value"].between(0, 1).all()
    assert ("AUROC" in said) == (name == "polymicrogyria")
    labels = {target.label for target in manifest.targets}
    assert labels == ({1, 2} if name == "trigeminal" else {None})
