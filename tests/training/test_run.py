"""The commands that make modules: train, cross-validate, calibrate; killed, on a full disk, on several processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.cross_validation import make_cross_validation
from tests.support.training import make_data, make_trainer, small_config
from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation import read_cross_validation
from ukb_infer.labels import read_labels
from ukb_infer.modules import load_module, read_manifest, verify_module
from ukb_infer.networks import InputScaling
from ukb_infer.training.calibrate import run_calibrate
from ukb_infer.training.config import Augmentation, make_config
from ukb_infer.training.cross_validate import run_cross_validate
from ukb_infer.training.dataset import Draws, augment, participant_folds
from ukb_infer.training.ensemble import UNCALIBRATED
from ukb_infer.training.history import read_histories, warn_of_overfitting
from ukb_infer.training.request import TrainRequest
from ukb_infer.training.train import run_train


def _quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 projections of 18 participants (both visits): squares whose size is the weight; some labels missing."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "projections").mkdir()
    rng = np.random.default_rng(0)
    rows = ["eid,instance,weight,waist"]
    for person in range(1, 19):
        for instance in (2, 3):
            size = int(rng.integers(50, 120))
            image = np.zeros((3, 256, 256), np.uint8)
            image[:, 40 : 40 + size, 60 : 60 + size] = 200
            np.save(folder / "projections" / f"{person:07d}_20201_{instance}_0.npy", image)
            waist = "" if person % 5 == 0 else f"{size + 10}"
            rows.append(f"{person:07d},{instance},{size},{waist}")
    np.save(folder / "projections" / "0000099_20201_2_0.npy", image)  # has no label
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def _request(data: Path, out: Path, **changes: Any) -> TrainRequest:
    settings: dict[str, Any] = {
        "iterations": 4, "batch_size": 6, "validate_every": 2, "warmup_mse": 1, "members": 2, "folds": 3,
        "scaling": InputScaling(1.0 / 64.0, -1.0, (32, 32)),
    }  # fmt: skip
    config = make_config("fast", **(settings | changes.pop("config", {})))
    options = {"device": "cpu", "processes": 1, "threads": 1} | changes
    return TrainRequest(projections=data / "projections", labels=data / "labels.csv", out=out, config=config, **options)


def test_train_ends_with_a_verified_module_that_predicts(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = run_train(_request(data, tmp_path / "mod", warning="Squares."), lines.append)
    assert manifest is not None
    assert verify_module(tmp_path / "mod") == []
    assert manifest.target_names == ("waist", "weight")
    assert manifest.warning == f"Squares. {UNCALIBRATED}"
    module = load_module(tmp_path / "mod")
    assert [t.calibration.method for t in module.manifest.targets] == ["none", "none"]
    text = "\n".join(lines)
    assert "36 labelled scans of 18 participants; 1 projections have no label" in text
    assert "waist: 17 % of the labels are missing" in text
    history = (tmp_path / "mod/history.csv").read_text().splitlines()
    assert history[0].startswith("member,iteration")
    assert "train_nll,valid_nll" in history[0]
    assert len(history) == 1 + 2 * 2
    card = (tmp_path / "mod/MODULE.md").read_text()
    assert "| waist | cm | 30 |" in card
    assert "36 scans of 18 participants" in card
    assert "| 17 | Ethics | approval and consent | **missing**: approval and consent |" in card
    member = tmp_path / "mod.work/member1"
    assert {p.name for p in member.iterdir()} >= {"best.safetensors", "last.safetensors", "history.csv", "tensorboard"}


@pytest.mark.parametrize(
    ("name", "words"), [("classification", "0/1 targets only, not waist"), ("segmentation", "use `ukb-infer adapt`")]
)
def test_an_objective_that_cannot_learn_the_labels_is_refused(
    name: str, words: str, data: Path, tmp_path: Path
) -> None:
    config = make_config("fast", objective=name, iterations=2)
    request = TrainRequest(
        projections=data / "projections", labels=data / "labels.csv", out=tmp_path / "mod", config=config, device="cpu"
    )
    with pytest.raises(UsageError, match=words):
        run_train(request, lambda _: None)


def test_projections_that_were_excluded_or_failed_later_are_not_learned(data: Path, tmp_path: Path) -> None:
    from ukb_infer.training.packing import pack

    folder = tmp_path / "projections"
    folder.mkdir()
    for file in (data / "projections").glob("000000[12]_*.npy"):
        (folder / file.name).symlink_to(file)
    (folder / "scans.csv").write_text(
        "scan,status,reasons\n0000001_20201_2_0,excluded,excluded\n"
        "0000001_20201_3_0,failed,knee_missing\n0000002_20201_2_0,ok,\n"
    )
    lines: list[str] = []
    packed = pack(folder, read_labels(data / "labels.csv"), tmp_path / "work", lines.append)
    assert {k.eid for k in packed.keys} == {"0000002"}
    assert "2 projections are left out" in lines[0]
    assert "1 of 18 labelled participants (or scans) have a projection, 17 have none" in lines[1]


def _no_array(path: Path) -> None:
    path.write_bytes(b"damaged")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _another_array(path: Path) -> None:
    np.save(path, np.zeros((2, 2)))


def _fewer_projections(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("damage", [_no_array, _empty, _cut_short, _another_array, _fewer_projections])
def test_a_pack_that_was_damaged_later_is_refused(damage: Callable[[Path], None], data: Path, tmp_path: Path) -> None:
    from ukb_infer.training.packing import pack

    labels = read_labels(data / "labels.csv")
    packed = pack(data / "projections", labels, tmp_path / "work")
    path, whole = packed.images_path, np.array(packed.data.images)
    del packed
    damage(path)
    with pytest.raises(RunError, match=r"projections\.npy: .*remove it, then run the same command again"):
        pack(data / "projections", labels, tmp_path / "work")
    path.unlink()
    assert np.array_equal(pack(data / "projections", labels, tmp_path / "work").data.images, whole)


@pytest.mark.slow
def test_how_many_members_train_at_a_time_changes_nothing(data: Path, tmp_path: Path) -> None:
    """At equal threads a member, members are independent."""
    from ukb_infer.training.ensemble import Standardization, train_members
    from ukb_infer.training.packing import pack

    request = _request(data, tmp_path / "mod")
    labels = read_labels(request.labels)
    packed = pack(request.projections, labels, tmp_path / "work")
    standardization = Standardization.fit(packed.data.labels, labels.targets)
    states = [
        train_members(
            request.config, packed.data, standardization, tmp_path / f"p{processes}", images_path=packed.images_path,
            processes=processes, threads=1, show=False,
        )
        for processes in (1, 2)
    ]  # fmt: skip
    for one, two in zip(*states, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name


def test_other_settings_are_refused_with_the_difference_spelled_out(data: Path, tmp_path: Path) -> None:
    run_train(_request(data, tmp_path / "mod"), _quiet)
    with pytest.raises(UsageError, match="finished result"):
        run_train(_request(data, tmp_path / "mod"), _quiet)
    other = replace(_request(data, tmp_path / "mod2", config={"seed": 7}), work=tmp_path / "mod.work")
    with pytest.raises(UsageError, match=r"seed was 0, now 7.*`overwrite`"):
        run_train(other, _quiet)
    again = run_train(replace(other, overwrite=True), _quiet)
    assert again is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "gpu"}, "`device`"),
        ({"processes": -1}, "`processes`"),
        ({"threads": -1}, "`threads`"),
        ({"config": {"precision": "bf16"}}, "`precision`: bf16"),
        ({"stratify": "height"}, "`stratify`: 'height'"),
        ({"targets": ("wieght",)}, "did you mean weight"),
    ],
)
def test_wrong_requests_name_the_option(data: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_train(_request(data, tmp_path / "mod", **changes), _quiet)


def test_a_file_that_is_no_projection_and_a_missing_folder_are_named(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "projections"
    folder.mkdir()
    np.save(folder / "0000001_20201_2_0.npy", np.zeros((3, 128, 128), np.uint8))
    with pytest.raises(RunError, match=r"0000001_20201_2_0\.npy: a cached projection is uint8 \(3, 128, 128\)"):
        run_train(replace(_request(data, tmp_path / "mod"), projections=folder), _quiet)
    with pytest.raises(RunError, match="no such folder"):
        run_train(replace(_request(data, tmp_path / "mod"), projections=tmp_path / "none"), _quiet)


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    assert run_train(replace(_request(data, tmp_path / "mod"), dry_run=True), lines.append) is None
    assert any("36 of 37 projections have a label" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("eid,height\n0999998,170\n0999999,180\n", "none of its 37 projections has a label"),
        ("eid,height,weight\n0000001,170,\n0000002,180,\n", "weight has fewer than two different labels"),
    ],
)
def test_a_dry_run_refuses_what_the_training_would(table: str, said: str, data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(table)
    request = replace(_request(data, tmp_path / "mod"), labels=labels, targets=(), dry_run=True)
    with pytest.raises((RunError, UsageError), match=said):
        run_train(request, _quiet)
    with pytest.raises(RunError, match="has no projections"):
        run_train(replace(request, projections=tmp_path), _quiet)


def test_cross_validation_predicts_everyone_out_of_fold(data: Path, tmp_path: Path) -> None:
    request = _request(data, tmp_path / "cv")
    result = run_cross_validate(request, _quiet)
    assert result is not None
    assert result.members == 2
    assert np.isfinite(result.predictions.mean).all()
    assert (result.predictions.epistemic > 0).all()
    folds_of: dict[str, set[int]] = {}
    for key, fold in zip(result.keys, result.fold, strict=True):
        folds_of.setdefault(key.eid, set()).add(int(fold))
    assert len(folds_of) == 18
    assert all(len(f) == 1 for f in folds_of.values())
    again = read_cross_validation(tmp_path / "cv")
    assert np.array_equal(again.predictions.mean, result.predictions.mean)
    # A fold's predictions come from the two networks that left it out and from no other.
    from safetensors.torch import load_file

    from ukb_infer.modules import InferenceModule
    from ukb_infer.networks import build_network
    from ukb_infer.training.ensemble import predict_in_batches

    run_train(replace(request, out=tmp_path / "mod"), _quiet)  # for its manifest
    manifest = read_manifest(tmp_path / "mod")
    networks = []
    for member in (1, 4):  # fold 0 is left out by members 1 and 4 of 6
        network = build_network(manifest.network.encoder, 2)
        network.load_state_dict(load_file(tmp_path / f"cv.work/member{member}/best.safetensors"))
        networks.append(network.eval())
    images = np.load(tmp_path / "cv.work/projections.npy")
    rows = np.flatnonzero(result.fold == 0)
    expected = predict_in_batches(InferenceModule(manifest, networks, torch.device("cpu")), images, rows=rows)
    assert np.array_equal(expected.mean, result.predictions.mean[rows])


def test_calibrate_writes_what_it_fitted(data: Path, tmp_path: Path) -> None:
    request = replace(_request(data, tmp_path / "mod"), targets=("weight",))
    before = run_train(request, _quiet)
    assert before is not None
    cv = make_cross_validation(tmp_path / "cv", ("weight",), members=2)
    lines: list[str] = []
    (dry,) = run_calibrate(cv, tmp_path / "mod", accept=("recipe",), dry_run=True, say=lines.append)
    assert read_manifest(tmp_path / "mod") == before
    for method in ("coverage", "closed-form", "conformal"):
        (fitted,) = run_calibrate(cv, tmp_path / "mod", method=method, accept=("recipe",), say=lines.append)
        target = read_manifest(tmp_path / "mod").targets[0]
        assert target.calibration.factor == fitted.factor
        assert (target.calibration.method == "conformal") == (method == "conformal")
        assert target.calibration.fitted_on == "39 out-of-fold predictions, 4 folds by participant"
        assert 1.2 < fitted.half_width95 < 3.5  # the made-up predictions are honest: about 1.96
    assert fitted == dry
    assert verify_module(tmp_path / "mod") == []
    assert UNCALIBRATED not in read_manifest(tmp_path / "mod").warning
    width = load_module(tmp_path / "mod").half_width(0, 0.9)
    assert width > 1.0
    found = read_cross_validation(cv)
    score = np.abs(found.labels - found.predictions.mean)[:, 0] / np.sqrt(found.predictions.total_variance[:, 0])
    score = np.sort(score[np.isfinite(score)]) / np.sqrt(fitted.factor)
    assert width == pytest.approx(score[int(np.ceil(40 * 0.9)) - 1])  # rank ceil((n + 1) level) of n = 39


def test_calibrate_says_what_does_not_fit(data: Path, tmp_path: Path) -> None:
    run_train(replace(_request(data, tmp_path / "mod"), targets=("weight",)), _quiet)
    make_cross_validation(tmp_path / "cv", ("weight",))
    with pytest.raises(UsageError, match=r"recipe: not recorded for the predictions.*`accept` recipe"):
        run_calibrate(tmp_path / "cv", tmp_path / "mod", say=_quiet)
    with pytest.raises(UsageError, match="`method`"):
        run_calibrate(tmp_path / "cv", tmp_path / "mod", method="isotonic", say=_quiet)
    run_train(_request(data, tmp_path / "mod2"), _quiet)
    with pytest.raises(UsageError, match="no predictions of waist"):
        run_calibrate(tmp_path / "cv", tmp_path / "mod2", say=_quiet)


def test_only_networks_of_the_same_kind_calibrate_a_module(data: Path, tmp_path: Path) -> None:
    """The fault: weights kept by another rule, another number of networks ... fitted onto a module without a word."""
    request = replace(_request(data, tmp_path / "mod", config={"folds": 0}), targets=("weight",))
    run_train(request, _quiet)
    before = read_manifest(tmp_path / "mod")

    def crossed(name: str, members: int = 2, **config: Any) -> Path:
        changes: dict[str, Any] = {"folds": 3, "members": members} | config
        targets = changes.pop("targets", ("weight",))
        run_cross_validate(replace(_request(data, tmp_path / name, config=changes), targets=targets), _quiet)
        return tmp_path / name

    alike = crossed("alike", seed=7)  # the seed chooses among networks of one kind
    (fitted,) = run_calibrate(alike, tmp_path / "mod", say=_quiet)
    assert read_manifest(tmp_path / "mod").targets[0].calibration.factor == fitted.factor
    assert read_manifest(tmp_path / "mod").training == before.training
    for name, changes in (
        ("networks", {"members": 1}),
        ("validation", {"validation": 0.0}),
        ("iterations", {"iterations": 5}),
        ("input_size", {"scaling": InputScaling(1.0 / 64.0, -1.0, (64, 64))}),
        ("targets", {"targets": ("weight", "waist")}),
    ):
        other = crossed(f"other-{name}", **changes)
        with pytest.raises(UsageError, match=rf"{name}: .* cross-validated, .* in the module.*`accept` {name}"):
            run_calibrate(other, tmp_path / "mod", say=_quiet)
        if name != "targets":
            said: list[str] = []
            run_calibrate(other, tmp_path / "mod", accept=(name,), say=said.append)
            assert said[0].startswith(f"difference accepted: {name}")
    with pytest.raises(UsageError, match="`accept`: 'seed' does not differ"):
        run_calibrate(alike, tmp_path / "mod", accept=("seed",), say=_quiet)


def test_learning_by_heart_is_remarked_on(tmp_path: Path) -> None:
    said: list[str] = []
    work = tmp_path / "mod.work" / "member1"
    work.mkdir(parents=True)
    header = "iteration,learning_rate,train_loss,train_nll,valid_nll,valid_mse\n"
    objective = make_config("fast").objective
    (work / "history.csv").write_text(header + "2,1,1,-1.0,0.5,1\n4,1,1,-4,9.0,1\n")
    warn_of_overfitting(read_histories(work.parent, 1), objective, said.append)
    assert "training NLL -1.00, validation NLL 0.50, at the kept iteration 2" in said[0]
    (work / "history.csv").write_text(header + "2,1,1,0.1,0.5,1\n4,1,1,-4,9.0,1\n")
    warn_of_overfitting(read_histories(work.parent, 1), objective, said.append)
    assert len(said) == 1


def test_own_targets_end_in_the_module(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[targets.side]\nunit = "px"\nlower = 0.0\nupper = 256.0\n')
    labels = tmp_path / "labels.csv"
    labels.write_text((data / "labels.csv").read_text().replace("waist", "side"))
    request = replace(_request(data, tmp_path / "mod"), labels=labels, targets=("side",), define=own)
    manifest = run_train(request, _quiet)
    assert manifest is not None
    assert (manifest.targets[0].name, manifest.targets[0].unit, manifest.targets[0].upper) == ("side", "px", 256.0)
    assert load_module(tmp_path / "mod").manifest.target_names == ("side",)


def test_stratified_folds_are_alike_and_keep_visits_together() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat([f"p{k}" for k in range(200)], 2)
    value = np.repeat(rng.normal(size=200), 2)
    value[7] = np.nan
    plain = participant_folds(people, 10, 1)
    folds = participant_folds(people, 10, 1, value)
    assert all(len(set(folds[people == p])) == 1 for p in np.unique(people))
    assert np.bincount(folds).tolist() == [40] * 10

    def spread(of: np.ndarray) -> float:
        return float(np.std([np.nanmean(value[of == f]) for f in range(10)]))

    assert spread(folds) < 0.3 * spread(plain)


def test_augmentation_keeps_the_fat_fraction_and_can_be_divided() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (8, 3, 32, 32), dtype=np.uint8)
    draws = Draws.draw(8, Augmentation(max_shift=0, intensity=0.2), np.random.default_rng(1))
    changed = augment(images, draws)
    assert np.array_equal(changed[:, 2], images[:, 2])
    expected = np.clip(np.rint(images[3, 0] * draws.gains[3, 0]), 0, 255)
    assert np.array_equal(changed[3, 0], expected.astype(np.uint8))
    draws = Draws.draw(8, Augmentation(max_shift=3, intensity=0.1, flip=True), np.random.default_rng(2))
    whole = augment(images, draws)
    for share in (slice(0, None, 2), slice(1, None, 2)):
        assert np.array_equal(augment(images[share], draws.part(share)), whole[share])
    mirrored = Draws(np.zeros((8, 2), np.int64), np.ones((8, 2)), np.ones(8, bool))
    assert np.array_equal(augment(images, mirrored), images[..., ::-1])


def test_flips_are_refused_for_targets_of_one_side(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        (data / "labels.csv").read_text().replace("weight", "DxaLegFatMassLeft").replace(",waist", ",hip")
    )
    request = replace(
        _request(data, tmp_path / "mod", config={"flip": True}), labels=labels, units={"DxaLegFatMassLeft": "g"}
    )
    with pytest.raises(UsageError):  # implausible or one-sided: either way nothing is trained
        run_train(request, _quiet)


def _command(data: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "ukb_infer", "train", "--projections", str(data / "projections"), "--labels",
        str(data / "labels.csv"), "--preset", "fast", "--members", "2", "--folds", "3", "--config", str(out) + ".toml",
        "--device", "cpu", "--out", str(out), *more,
    ]  # fmt: skip


def _config_file(out: Path, iterations: int) -> None:
    Path(f"{out}.toml").write_text(f"iterations = {iterations}\nbatch_size = 6\nvalidate_every = 5\nwarmup_mse = 2\n")


@pytest.mark.slow
def test_kill_nine_again_and_again_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    """The whole command in its own process group, killed at several moments, against one left alone."""
    _config_file(tmp_path / "whole", 40)
    subprocess.run(_command(data, tmp_path / "whole"), check=True, capture_output=True)
    _config_file(tmp_path / "cut", 40)
    kills = 0
    for seconds in (4.0, 6.0, 7.5, 9.0, 11.0):
        command, null = _command(data, tmp_path / "cut"), subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True)
        time.sleep(seconds)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    if not (tmp_path / "cut/module.json").exists():
        subprocess.run(_command(data, tmp_path / "cut"), check=True, capture_output=True)
    assert kills >= 1
    for name in ("member1.safetensors", "member2.safetensors", "history.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(data: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: writing fails in the middle of the checkpoint."""
    _config_file(tmp_path / "mod", 10)
    subprocess.run(_command(data, tmp_path / "mod"), check=True, capture_output=True)
    checkpoint = tmp_path / "mod.work/member1/checkpoint.pt"
    size, content = checkpoint.stat().st_size, checkpoint.read_bytes()
    script = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\n"
        "from tests.support.training import make_data, make_trainer, small_config\n"
        "trainer = make_trainer(Path(sys.argv[1]), make_data(), small_config())\n"
        "try:\n    trainer.save()\n"
        "except Exception as error:\n    print(type(error).__name__, error); sys.exit(1)\n"
    )
    folder = tmp_path / "member"
    trainer = make_trainer(folder, make_data(), small_config())
    trainer.save()
    content, size = trainer.checkpoint.path.read_bytes(), trainer.checkpoint.path.stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("RunError")
    assert "the previous checkpoint is kept" in done.stdout
    assert trainer.checkpoint.path.read_bytes() == content
    assert [p.name for p in folder.glob(".*partial*")] == []


@pytest.mark.slow
def test_torchrun_trains_one_member_on_two_processes(data: Path, tmp_path: Path) -> None:
    _config_file(tmp_path / "mod", 10)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, *_command(data, tmp_path / "mod", "--processes", "1")[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert verify_module(tmp_path / "mod") == []
    assert done.stdout.count("verified") == 1


@pytest.mark.slow
def test_two_processes_train_as_one_does(data: Path, tmp_path: Path) -> None:
    """Batch statistics and gradients are those of the whole batch: the first losses agree to float32."""
    losses = {}
    for world in (1, 2):
        out = tmp_path / f"mod{world}"
        Path(f"{out}.toml").write_text("iterations = 4\nbatch_size = 8\nvalidate_every = 1\nwarmup_mse = 1\n")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world), "--standalone"]
        command = _command(data, out, "--processes", "1", "--members", "1")[1:]
        subprocess.run([*torchrun, *command], check=True, capture_output=True, timeout=300)
        rows = (out / "history.csv").read_text().splitlines()[1:]
        losses[world] = [float(row.split(",")[3]) for row in rows]
    assert losses[2][:2] == pytest.approx(losses[1][:2], rel=1e-4)
    assert losses[2] == pytest.approx(losses[1], rel=0.05)
