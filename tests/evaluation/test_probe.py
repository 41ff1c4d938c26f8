"""The linear probe."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.probe import ProbeConfig, ProbeReport, divide, read_probe_data, run_probe

COUNT, FEATURES = 160, 24


def write(folder: Path, *, sessions: int = 1, names: str = "sub_{:03d}") -> None:
    """Embeddings from which age is read well, sex somewhat, and a coin not at all."""
    rng = np.random.default_rng(4)
    people = [names.format(k) for k in range(COUNT)]
    age = rng.uniform(20, 80, COUNT)
    sex = np.where(rng.random(COUNT) < 0.5, "F", "M")
    directions = rng.standard_normal((2, FEATURES))
    clean = ((age - 50) / 17)[:, None] * directions[0] + np.where(sex == "F", 0.4, -0.4)[:, None] * directions[1]
    rows = []
    for session in range(sessions):
        found = 3.0 * (clean + 1.5 * rng.standard_normal((COUNT, FEATURES))) + 100.0
        frame = pd.DataFrame(found.astype(np.float32), columns=[f"feature_{k}" for k in range(FEATURES)])
        rows.append(frame.assign(participant=people, session=f"ses_{session + 1}"))
    pd.concat(rows).to_parquet(folder / "e.parquet")
    table = pd.DataFrame(
        {
            "participant_id": people,
            "age": age.round(1),
            "sex": sex,
            "coin": rng.integers(0, 2, COUNT),
            "site": rng.choice(list("abc"), COUNT),
            "many": rng.choice(["x", "y", "z"], COUNT),
        }
    )
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)


def config(folder: Path, target: str, **more: object) -> ProbeConfig:
    settings: dict = {"embeddings": folder / "e.parquet", "labels": folder / "participants.tsv", "out": folder / "out"}
    return ProbeConfig(**settings | {"target": target, "seeds": 3, "replicates": 200} | more)


def probe(folder: Path, target: str, **more: object) -> ProbeReport:
    return run_probe(config(folder, target, **more))


def test_participants_are_divided_40_10_50(tmp_path: Path) -> None:
    write(tmp_path, sessions=2)
    data = read_probe_data(config(tmp_path, "sex"))
    parts = divide(data, 7)
    people = [set(data.participants[part]) for part in parts]
    assert [len(p) for p in people] == pytest.approx([0.4 * COUNT, 0.1 * COUNT, 0.5 * COUNT], abs=1)
    assert len(people[0] | people[1] | people[2]) == COUNT
    assert sum(map(len, parts)) == 2 * COUNT  # both sessions of a participant lie on one side
    shares = [data.label[part].mean() for part in parts]
    assert max(shares) - min(shares) < 0.15
    assert not np.array_equal(parts[2], divide(data, 8)[2])


def test_a_class_is_read_about_as_well_as_by_logistic_regression(tmp_path: Path) -> None:
    write(tmp_path)
    report = probe(tmp_path, "sex")
    data = read_probe_data(config(tmp_path, "sex"))
    areas = []
    for seed in range(3):
        train, _, judge = divide(data, seed)
        mean, sd = data.features[train].mean(axis=0), data.features[train].std(axis=0)
        fit = LogisticRegression(C=0.1).fit((data.features[train] - mean) / sd, data.label[train])
        areas.append(roc_auc_score(data.label[judge], fit.decision_function((data.features[judge] - mean) / sd)))
    found = report.metrics["auroc"]
    assert found.value == pytest.approx(np.mean(areas), abs=0.03)
    assert 0.5 < found.low < found.value < found.high <= 1
    assert report.classes == ("F", "M")


def test_a_number_is_read_about_as_well_as_by_ridge_regression(tmp_path: Path) -> None:
    write(tmp_path)
    report = probe(tmp_path, "age")
    data = read_probe_data(config(tmp_path, "age"))
    scores = []
    for seed in range(3):
        train, _, judge = divide(data, seed)
        mean, sd = data.features[train].mean(axis=0), data.features[train].std(axis=0)
        fit = Ridge(alpha=10.0).fit((data.features[train] - mean) / sd, data.label[train])
        scores.append(r2_score(data.label[judge], fit.predict((data.features[judge] - mean) / sd)))
    assert report.metrics["r2"].value == pytest.approx(np.mean(scores), abs=0.05)
    assert report.metrics["r"].value > 0.85
    assert report.metrics["mae"].value < 9
    assert report.classes == ()


def test_noise_is_not_read(tmp_path: Path) -> None:
    write(tmp_path)
    coin = probe(tmp_path, "coin").metrics["auroc"]
    assert coin.low < 0.5 < coin.high
    assert probe(tmp_path, "many").metrics["auroc"].value == pytest.approx(0.5, abs=0.1)


def test_fairness_over_groups(tmp_path: Path) -> None:
    write(tmp_path)
    report = probe(tmp_path, "sex", groups=("site", "age"))
    assert 0.5 < report.metrics["fairness"].value < 1
    with (tmp_path / "out" / "groups.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [r["group"] for r in rows if r["attribute"] == "site"] == ["a", "b", "c"]
    assert len([r for r in rows if r["attribute"] == "age"]) == 4  # quarters
    with (tmp_path / "out" / "seeds.csv").open() as handle:
        seeds = list(csv.DictReader(handle))
    assert [s["seed"] for s in seeds] == ["0", "1", "2"]
    assert {"auroc", "fairness", "learning_rate", "n_train"} <= seeds[0].keys()


def test_the_same_seed_gives_the_same_tables(tmp_path: Path) -> None:
    write(tmp_path)
    texts = []
    for name in ("one", "two"):
        probe(tmp_path, "age", out=tmp_path / name)
        texts.append([p.read_bytes() for p in sorted((tmp_path / name).iterdir())])
    assert texts[0] == texts[1]


def test_vectors_in_one_column_and_eids_with_zeros(tmp_path: Path) -> None:
    write(tmp_path, names="{:07d}")
    frame = pd.read_parquet(tmp_path / "e.parquet")
    features = [f"feature_{k}" for k in range(FEATURES)]
    expected = probe(tmp_path, "age").metrics
    listed = pd.DataFrame({"scan": frame["participant"] + "_20201_2_0", "embedding": list(frame[features].to_numpy())})
    listed.to_parquet(tmp_path / "e.parquet")
    table = pd.read_csv(tmp_path / "participants.tsv", sep="\t")
    table.rename(columns={"participant_id": "eid"}).to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    assert probe(tmp_path, "age").metrics == expected


@pytest.mark.parametrize(
    ("target", "more", "said"),
    [
        ("weight", {}, "no column 'weight'"),
        ("sex", {"groups": ("ward",)}, "no column 'ward'"),
        ("sex", {"seeds": 0}, "seeds"),
        ("sex", {"embeddings": Path("none.parquet")}, "ukb-infer embed"),
    ],
)
def test_errors_say_what_to_change(tmp_path: Path, target: str, more: dict, said: str) -> None:
    write(tmp_path)
    with pytest.raises(UsageError, match=said):
        probe(tmp_path, target, **more)


def test_too_few_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    table = pd.read_csv(tmp_path / "participants.tsv", sep="\t").head(10)
    table.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    with pytest.raises(UsageError, match=r"10 participants.*at least 20"):
        probe(tmp_path, "sex")
