"""Scores of any system's outputs."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from tests.support.few_shot import AFFINE, SHAPE, write_label, write_participants
from ukb_infer.errors import UsageError
from ukb_infer.evaluation.segmentation import dice, surface_dice
from ukb_infer.tasks.suites import ScoreConfig, ScoreReport, run_score

RNG = np.random.default_rng(0)
NAMES = [f"sub_{k:02d}" for k in range(1, 25)]
CLASSES = [k % 3 == 0 for k in range(24)]
PROBABILITIES = [
    round(float(v), 3) for v in np.clip(0.3 + 0.2 * np.array(CLASSES) + 0.2 * RNG.standard_normal(24), 0, 1)
]
AGES = [20.0 + 2.5 * k for k in range(24)]
ESTIMATES = [round(age + 8 * float(RNG.standard_normal()), 2) for age in AGES]


def labelled(folder: Path, values: list[float], session: str = "") -> Path:
    for name, value in zip(NAMES, values, strict=True):
        write_label(folder / "labels" / name / session, float(value))
    return folder


def outputs(folder: Path, values: list[float]) -> Path:
    folder.mkdir()
    for name, value in zip(NAMES, values, strict=True):
        (folder / f"{name}.txt").write_text(f"{value}\n")
    return folder


def score(tmp_path: Path, **more: object) -> ScoreReport:
    settings: dict = {"predictions": tmp_path / "pred", "labels": tmp_path, "out": tmp_path / "out", "suite": "fomo25"}
    return run_score(ScoreConfig(**settings | {"replicates": 200} | more))


def values(report: ScoreReport) -> dict[str, float]:
    return {s.metric: s.value.value for s in report.scores}


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_a_class_is_scored_by_auroc(tmp_path: Path) -> None:
    labelled(tmp_path, CLASSES, "ses_1")
    outputs(tmp_path / "pred", PROBABILITIES)
    report = score(tmp_path)
    assert values(report) == {"auroc": pytest.approx(roc_auc_score(CLASSES, PROBABILITIES))}
    (row,) = read(tmp_path / "out" / "scores.csv")
    assert (row["task"], row["metric"], row["n"], row["missing"]) == ("fomo25-infarct", "auroc", "24", "0")
    assert float(row["lower"]) < float(row["value"]) < float(row["upper"])


def test_ages_are_scored_by_error_and_correlation(tmp_path: Path) -> None:
    labelled(tmp_path, AGES)
    outputs(tmp_path / "pred", ESTIMATES)
    report = score(tmp_path, labels=tmp_path / "labels")
    error = np.abs(np.array(AGES) - ESTIMATES).mean()
    assert values(report) == {"mae": pytest.approx(error), "r": pytest.approx(pearsonr(AGES, ESTIMATES).statistic)}


def test_missing_and_unusable_outputs_count_as_the_worst(tmp_path: Path) -> None:
    labelled(tmp_path, CLASSES)
    pred = outputs(tmp_path / "pred", PROBABILITIES)
    (pred / f"{NAMES[0]}.txt").unlink()  # of class 1
    (pred / f"{NAMES[1]}.txt").write_text("nan")  # of class 0
    report = score(tmp_path)
    worst = [0.0, 1.0, *PROBABILITIES[2:]]
    assert values(report)["auroc"] == pytest.approx(roc_auc_score(CLASSES, worst))
    assert report.scores[0].missing == 2
    rows = read(tmp_path / "out" / "cases.csv")
    assert [row["status"] for row in rows[:3]] == ["no_output", "not_finite", "ok"]


def test_a_missing_age_is_an_error_of_100_years(tmp_path: Path) -> None:
    labelled(tmp_path, AGES)
    pred = outputs(tmp_path / "pred", AGES)
    (pred / f"{NAMES[-1]}.txt").unlink()
    report = score(tmp_path)
    assert values(report)["mae"] == pytest.approx(100 / 24)
    assert values(report)["r"] < 0.9


@pytest.mark.parametrize(("labels", "worst"), [(CLASSES, {"auroc": 0.0}), (AGES, {"mae": 100.0, "r": -100.0})])
def test_without_any_output_every_metric_is_the_worst(tmp_path: Path, labels: list, worst: dict[str, float]) -> None:
    labelled(tmp_path, labels)
    (tmp_path / "pred").mkdir()
    assert values(score(tmp_path)) == worst


def test_constant_ages_have_the_worst_correlation(tmp_path: Path) -> None:
    labelled(tmp_path, AGES)
    outputs(tmp_path / "pred", [50.0] * 24)
    assert values(score(tmp_path))["r"] == -100.0


def box(*corner: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[corner[0] : corner[0] + 3, corner[1] : corner[1] + 3, corner[2] : corner[2] + 2] = 1
    return mask


def save(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(mask, AFFINE), path)


def test_masks_are_scored_by_dice_and_surface_dice(tmp_path: Path) -> None:
    empty = box(1, 1, 1) * 0
    cases = {
        "a": (box(1, 1, 1), box(2, 1, 1)),
        "b": (empty, empty),
        "c": (box(3, 3, 3), empty),
        "d": (box(1, 1, 1), None),
    }
    for name, (label, mask) in cases.items():
        write_label(tmp_path / "labels" / name, label)
        if mask is not None:
            save(tmp_path / "pred" / f"{name}.nii.gz", mask)
    report = score(tmp_path)
    spacing = (1.5, 1.0, 2.0)
    shifted = dice(*cases["a"]), surface_dice(*cases["a"], spacing)
    assert 0 < shifted[1] < 1
    assert values(report) == {"dice": pytest.approx((shifted[0] + 1) / 4), "nsd": pytest.approx(shifted[1] / 4)}
    assert [case.fault for case in report.cases] == ["", "", "", "no_output"]
    friendly = score(tmp_path, both_empty=1.0)
    assert values(friendly)["nsd"] == pytest.approx((shifted[1] + 1) / 4)


def test_labels_of_two_nerves_are_averaged(tmp_path: Path) -> None:
    label = box(1, 1, 1) + 2 * box(5, 5, 3)
    write_label(tmp_path / "labels" / "a", label)
    save(tmp_path / "pred" / "a.nii.gz", box(1, 1, 1))
    report = score(tmp_path, suite="fomo26", task="task4")
    assert values(report)["dice"] == pytest.approx(0.5)


def test_a_mask_on_another_grid_counts_as_the_worst(tmp_path: Path) -> None:
    write_label(tmp_path / "labels" / "a", box(1, 1, 1))
    (tmp_path / "pred").mkdir()
    nib.save(nib.Nifti1Image(box(1, 1, 1), np.eye(4)), tmp_path / "pred" / "a.nii.gz")
    report = score(tmp_path)
    assert values(report) == {"dice": 0.0, "nsd": 0.0}
    assert report.cases[0].fault == "wrong_affine"


def test_groups_are_judged_where_they_are_known(tmp_path: Path) -> None:
    labelled(tmp_path, CLASSES)
    outputs(tmp_path / "pred", PROBABILITIES)
    write_participants(tmp_path, {name: {"sex": "FM"[k % 2], "site": "A"} for k, name in enumerate(NAMES)})
    report = score(tmp_path)
    areas = [roc_auc_score(CLASSES[k::2], PROBABILITIES[k::2]) for k in (0, 1)]
    assert values(report)["fairness"] == pytest.approx(1 - abs(areas[0] - areas[1]))
    rows = {(r["attribute"], r["group"]): r for r in read(tmp_path / "out" / "groups.csv")}
    assert float(rows["sex", "F"]["value"]) == pytest.approx(areas[0], abs=1e-5)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("scan,{k:07d}_20201_2_0", "{k:07d}_20201_2_0"),
        ("eid,{k:07d}", "{k:07d}_20201_2_0"),
        ("eid,{k}", "{k:07d}"),
        ("scan,{k:07d}_20201_2_0", "{k:07d}_ses-2"),
    ],
)
def test_bodies_are_scored_from_a_table_too(tmp_path: Path, keys: str, name: str) -> None:
    litres = [2.0 + 0.2 * k for k in range(24)]
    key = keys.split(",")
    rows = [f"{key[1].format(k=k)},{v}" for k, v in enumerate(litres, start=1)]
    (tmp_path / "labels.csv").write_text("\n".join([f"{key[0]},AtlasVatVolume", *rows]) + "\n")
    (tmp_path / "pred").mkdir()
    for k, v in enumerate(litres[:-1], start=1):
        (tmp_path / "pred" / f"{name.format(k=k)}.txt").write_text(str(v + 0.5))
    report = score(tmp_path, labels=tmp_path / "labels.csv", suite="body", task="body-vat")
    assert (report.scores[0].count, report.scores[0].missing) == (24, 1)
    assert values(report)["mae"] == pytest.approx((23 * 0.5 + 100) / 24)


def test_outputs_without_a_label_are_named(tmp_path: Path) -> None:
    labelled(tmp_path, CLASSES)
    (outputs(tmp_path / "pred", PROBABILITIES) / "sub_99.txt").write_text("1")
    assert score(tmp_path).unlabelled == ("sub_99",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"suite": "fomo27"}, "fomo25, fomo26, body"),
        ({"suite": "fomo26"}, "fomo26-infarct, fomo26-polymicrogyria"),
        ({"task": "fomo26-infarct"}, "not of the suite"),
        ({"suite": "fomo26", "task": "task6"}, "ukb-infer probe"),
        ({"task": "task2"}, "no labels of fomo25-meningioma"),
        ({"predictions": Path("nowhere")}, "a folder of outputs"),
    ],
)
def test_errors_say_what_to_change(tmp_path: Path, settings: dict, said: str) -> None:
    labelled(tmp_path, CLASSES)
    outputs(tmp_path / "pred", PROBABILITIES)
    with pytest.raises(UsageError, match=said):
        score(tmp_path, **settings)


@pytest.mark.parametrize("place", ["of each session", "of the participant"])
def test_sessions_are_scored_by_themselves(tmp_path: Path, place: str) -> None:
    labelled(tmp_path, CLASSES, "ses_1" if place == "of each session" else "")
    if place == "of each session":
        write_label(tmp_path / "labels" / NAMES[0] / "ses_2", 0.0)
    write_participants(tmp_path, {name: {"sex": "FM"[k % 2]} for k, name in enumerate(NAMES)})
    pred = outputs(tmp_path / "pred", PROBABILITIES)
    (pred / f"{NAMES[0]}.txt").rename(pred / f"{NAMES[0]}_ses_1.txt")
    (pred / f"{NAMES[0]}_ses_2.txt").write_text("0.25\n")
    report = score(tmp_path)
    classes = [*CLASSES, CLASSES[0] and place == "of the participant"]
    assert values(report)["auroc"] == pytest.approx(roc_auc_score(classes, [*PROBABILITIES, 0.25]))
    assert (report.scores[0].count, report.scores[0].missing, report.unlabelled) == (25, 0, ())
    assert [c.groups for c in report.cases if c.name.startswith(NAMES[0])] == [{"sex": "F"}] * 2


def test_a_session_without_output_is_missing(tmp_path: Path) -> None:
    labelled(tmp_path, CLASSES, "ses_1")
    write_label(tmp_path / "labels" / NAMES[0] / "ses_2", 0.0)
    outputs(tmp_path / "pred", PROBABILITIES)
    (tmp_path / "pred" / f"{NAMES[0]}.txt").rename(tmp_path / "pred" / f"{NAMES[0]}_ses_2.txt")
    (row,) = [c for c in score(tmp_path).cases if c.fault]
    assert (row.name, row.fault) == (f"{NAMES[0]}_ses_1", "no_output")


def test_the_bootstrap_draws_participants_with_all_their_sessions(tmp_path: Path) -> None:
    """Every output again for a second session: nothing is learned, and no interval may be narrower."""
    labelled(tmp_path, AGES)
    pred = outputs(tmp_path / "pred", ESTIMATES)
    once = score(tmp_path).scores[0].value
    for name in NAMES:
        text = (pred / f"{name}.txt").read_text()
        (pred / f"{name}.txt").rename(pred / f"{name}_ses_1.txt")
        (pred / f"{name}_ses_2.txt").write_text(text)
    twice = score(tmp_path).scores[0]
    assert twice.count == 2 * len(NAMES)
    found, expected = twice.value, (once.value, once.low, once.high)
    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_a_task_of_ones_own_is_scored_without_a_suite(tmp_path: Path) -> None:
    task = tmp_path / "sex.toml"
    text = 'name = "sex"\noutput = "class"\ninputs = ["t1"]\ngroups = ["site"]\n[target]\nname = "sex"\n'
    task.write_text(text)
    labelled(tmp_path, CLASSES)
    outputs(tmp_path / "pred", PROBABILITIES)
    write_participants(tmp_path, {name: {"site": "ab"[k % 2]} for k, name in enumerate(NAMES)})
    report = score(tmp_path, suite="", task=str(task))
    assert values(report)["auroc"] == pytest.approx(roc_auc_score(CLASSES, PROBABILITIES))
    assert [(s.task, s.metric) for s in report.scores] == [("sex", "auroc"), ("sex", "fairness")]
    assert score(tmp_path, suite="", task="fomo25-infarct").scores[0].value == report.scores[0].value
    with pytest.raises(UsageError, match="sex is not of the suite fomo25"):
        score(tmp_path, task=str(task))
    with pytest.raises(UsageError, match="expected one of fomo25, fomo26, body, or a task"):
        score(tmp_path, suite="")
    task.write_text('metrics = ["dice"]\n' + text)
    with pytest.raises(UsageError, match="metrics: got 'dice', expected for a class some of auroc"):
        score(tmp_path, suite="", task=str(task))


def test_names_that_begin_alike_keep_their_own_labels(tmp_path: Path) -> None:
    labelled(tmp_path, AGES)
    pred = outputs(tmp_path / "pred", ESTIMATES)
    for session in ("ses_1", "ses_2"):
        write_label(tmp_path / "labels" / f"{NAMES[0]}_b" / session, 50.0)
    (pred / f"{NAMES[0]}.txt").unlink()  # missing, though outputs begin with its name
    (pred / f"{NAMES[0]}_b_ses_1.txt").write_text("51")
    (pred / f"{NAMES[0]}_b_ses_3.txt").write_text("52")
    report = score(tmp_path, suite="", task="fomo25-brain-age")
    found = {c.name: (c.participant, c.label, c.fault) for c in report.cases if c.name.startswith(NAMES[0])}
    assert found == {
        NAMES[0]: (NAMES[0], AGES[0], "no_output"),
        f"{NAMES[0]}_b_ses_1": (f"{NAMES[0]}_b", 50.0, ""),
        f"{NAMES[0]}_b_ses_2": (f"{NAMES[0]}_b", 50.0, "no_output"),
    }
    assert report.unlabelled == (f"{NAMES[0]}_b_ses_3",)
