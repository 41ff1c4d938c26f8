"""Ranks of FOMO25 and FOMO26."""

import csv
from pathlib import Path

import numpy as np
import pytest

from ukb_infer.errors import UsageError
from ukb_infer.evaluation.ranking import RULES, rank_teams, read_leaderboard, run_rank
from ukb_infer.tasks.registry import TASKS

#: Published results of FOMO25: track, team, overall and task ranks, AUROC, Dice, NSD, r, MAE in years.
PUBLISHED = """\
method FOMO2JOMO 2.7 2 5 1 .782 .095 .071 .651 10.96
method Dolphins_creators 4.8 7 1 6.5 .684 .261 .232 .448 12.67
method TUKE 5.2 4 8 3.5 .75 .046 .043 .602 11.96
method MaastrichtU-CDS 5.2 6 2.5 7 .688 .181 .126 .599 16.17
method FARM 5.3 5 4 7 .715 .148 .113 .531 13.41
method DKFZ_MIC 5.8 9 2.5 6 .569 .171 .155 .557 13.31
method MIPLAB 6.0 10 6 2 .473 .065 .053 .632 11.48
method prenuvo 6.2 8 7 3.5 .649 .064 .047 .626 12.53
method fomo25_brain 6.8 3 9 8.5 .76 .006 .005 .409 14.85
method ashash 7.2 1 10.5 10 .789 .003 .004 .37 17.62
method biopet 10.8 11 10.5 11 .44 .005 .002 .137 18.21
method baseline_unet_b - - - - .536 0 0 .538 12.05
method baseline_unet_xl - - - - .624 0 0 .446 12.82
open LatentCampus 2.7 2 1 5 .659 .275 .243 .558 16.5
open FOMO2JOMO 3.7 4 6 1 .625 .039 .04 .861 6.8
open DKFZ_MIC 4.17 7 2 3.5 .569 .252 .227 .556 13.67
open MIPLAB 4.50 3 5 5.5 .639 .048 .046 .32 14.21
open FOMO_HSEE 4.7 9 3 2 .491 .184 .141 .633 12.27
open Raidium 4.8 5 4 5.5 .593 .11 .093 .357 14.31
open CAMI_SIAT 5.5 1 8.5 7 .671 .007 .004 .229 16.42
open McGill_PVG 7.3 8 7 7 .56 .014 .007 .444 18.03
open TeamTigerAtFOMO2025 7.5 6 8 8.5 .58 .006 .007 -.032 16.79
"""
COLUMNS = (
    "track,team,overall_rank,task1_rank,task2_rank,task3_rank,task1_auroc,task2_dice,task2_nsd,task3_pearson_r,"
    "task3_mae_years"
)


def published(folder: Path, text: str = PUBLISHED) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([COLUMNS, *(line.replace(" ", ",") for line in text.splitlines())]) + "\n")
    return path


def ranks(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    with path.open() as handle:
        return {
            (row["track"], row["team"]): {k: float(v) for k, v in row.items() if k.endswith("rank")}
            for row in csv.DictReader(handle)
        }


def agree(found: dict[str, float], row: dict[str, str]) -> bool:
    """Every rank equals the published one at its number of decimals, halves rounded either way."""
    return all(
        abs(found[k] - float(row[k])) <= 0.5 * 10.0 ** -len(row[k].partition(".")[2] or "0") + 1e-9 for k in found
    )


def test_the_published_ranks_of_fomo25(tmp_path: Path) -> None:
    table = published(tmp_path)
    run_rank(table, tmp_path / "out")
    found = ranks(tmp_path / "out" / "ranking.csv")
    with table.open() as handle:
        rows = {(r["track"], r["team"]): r for r in csv.DictReader(handle) if not r["team"].startswith("baseline")}
    assert found.keys() == rows.keys()
    other = {key for key, row in rows.items() if not agree(found[key], row)}
    assert other == {("open", "McGill_PVG"), ("open", "TeamTigerAtFOMO2025")}


def test_with_the_better_rank_for_ties_all_published_ranks_agree(tmp_path: Path) -> None:
    """Both of the other two print an NSD of 0.007, the only tie; no order of unrounded values gives their ranks."""
    table = published(tmp_path)
    run_rank(table, tmp_path / "out", ties="min")
    found = ranks(tmp_path / "out" / "ranking.csv")
    with table.open() as handle:
        rows = {(r["track"], r["team"]): r for r in csv.DictReader(handle) if not r["team"].startswith("baseline")}
    assert all(agree(found[key], row) for key, row in rows.items())


def test_the_reference_table_gives_the_same(tmp_path: Path) -> None:
    reference = Path(__file__).parents[3] / "shared" / "reference" / "fomo25_leaderboard.csv"
    if not reference.is_file():
        pytest.skip("no reference table beside the repository")
    run_rank(reference, tmp_path / "reference")
    run_rank(published(tmp_path), tmp_path / "own")
    found, own = (ranks(tmp_path / name / "ranking.csv") for name in ("reference", "own"))
    assert {(track, team.replace(" ", "_")): r for (track, team), r in found.items()} == own


def test_the_top_five_of_the_paper_come_out_without_one_team(tmp_path: Path) -> None:
    run_rank(published(tmp_path), tmp_path / "out", without=["FARM"])
    found = ranks(tmp_path / "out" / "ranking.csv")
    top = [(team, round(r["overall_rank"], 1)) for (track, team), r in found.items() if track == "method"][:5]
    paper = {"FOMO2JOMO": 2.3, "Dolphins_creators": 4.3, "MaastrichtU-CDS": 4.7, "TUKE": 4.8, "MIPLAB": 5.3}
    assert top == list(paper.items())


def test_the_weights_of_fomo26_on_a_worked_example(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "team,task1_auroc,task2_dice,task2_nsd,task3_mae,task3_r,task4_dice,task4_nsd,task5_auroc,task6_auroc,"
        "task7_fairness\n"
        "a,.9,.3,.2,8,.7,.5,.5,.8,.8,.9\n"
        "b,.8,.4,.1,9,.6,.5,.4,.7,.9,.8\n"
        "c,.7,.2,.3,7,.5,,,.9,.7,.7\n"
    )
    run_rank(path, tmp_path, rules="fomo26")
    found = {team: r for (_, team), r in ranks(tmp_path / "ranking.csv").items()}
    # Task 2: a (2+2)/2, b (1+3)/2, c (3+1)/2. Task 3: a (2+1)/2, b (3+2)/2, c (1+3)/2. Task 4: c has no result, 2 + 1.
    assert found["a"]["overall_rank"] == pytest.approx(0.1 * (1 + 1.5 + 2 + 2 + 1) + 0.25 * (2 + 1.25))
    assert found["b"]["overall_rank"] == pytest.approx(0.1 * (2 + 2.5 + 3 + 1 + 2) + 0.25 * (2 + 1.75))
    assert found["c"]["overall_rank"] == pytest.approx(0.1 * (3 + 2 + 1 + 3 + 3) + 0.25 * (2 + 3))


def test_the_weights_are_those_of_the_registry() -> None:
    assert RULES["fomo26"] == {t.number: t.weight for t in TASKS.values() if t.suite == "fomo26"}
    assert all(sum(weights.values()) == pytest.approx(1.0) for weights in RULES.values())


def test_a_missing_task_counts_as_valid_submissions_plus_one(tmp_path: Path) -> None:
    table = read_leaderboard(published(tmp_path, PUBLISHED.replace(".275 .243", ", ,").replace(" , ,", " - -")))
    (_, opened) = rank_teams(table)
    assert opened.tasks[opened.teams.index("LatentCampus"), 1] == 9.0  # eight others


def test_a_table_of_a_spreadsheet_with_a_mark_and_rows_of_commas_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    text = "team,task1_auroc,task2_dice,task3_r\na,.8,.3,.5,\nb,.7,,.4,, \n,,,\n , , , , \n"
    path.write_text(text, encoding="utf-8-sig")
    (ranking,) = rank_teams(read_leaderboard(path))
    assert ranking.teams == ("a", "b")
    assert ranking.tasks.tolist() == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]


def test_intervals_of_the_results_decide_how_stable_places_are(tmp_path: Path) -> None:
    cells = "team,task1_auroc,task1_auroc_lower,task1_auroc_upper,task2_dice,task3_r\n"
    path = tmp_path / "table.csv"
    path.write_text(cells + "a,.80,.79,.81,.3,.5\nb,.70,.69,.71,.2,.4\nc,.69,.60,.78,.2,.4\n")
    (ranking,) = rank_teams(read_leaderboard(path), replicates=2000, seed=1)
    assert ranking.teams[0] == "a"
    assert (ranking.places[:, 0] == 1).mean() > 0.97
    below = ranking.places[:, ranking.teams.index("c")]
    assert 0.2 < (below == 2).mean() < 0.8  # b and c differ by less than c's interval
    assert ranking.basis == "results drawn from their intervals"


def test_without_intervals_the_tasks_are_redrawn(tmp_path: Path) -> None:
    result = run_rank(published(tmp_path), tmp_path / "out", bootstrap=500)
    with (tmp_path / "out" / "stability.csv").open() as handle:
        rows = {(r["track"], r["team"]): r for r in csv.DictReader(handle)}
    worst = rows["method", "biopet"]
    assert (worst["place_lower"], worst["place_upper"]) == ("10", "11") or worst["place_lower"] == "11"
    assert all(int(r["place_lower"]) <= int(r["place"]) <= int(r["place_upper"]) for r in rows.values())
    assert result.baselines == ("baseline_unet_b", "baseline_unet_xl")
    again = run_rank(published(tmp_path), tmp_path / "again", bootstrap=500)
    assert all(np.array_equal(a.places, b.places) for a, b in zip(result.rankings, again.rankings, strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("team,task1_auroc\na,.5\n", r"tasks \[1\].*\[1, 2, 3\]"),
        ("team,task1_aurok,task2_dice,task3_r\na,1,1,1\n", "did you mean auroc"),
        ("team,task1_auroc,task2_dice,task3_r\na,good,1,1\n", "row 2, column task1_auroc"),
        ("team,task1_auroc,task2_dice,task3_r\na,0,5,0,5,0,5\n", "row 2 has more cells .* decimal commas"),
        ("team;task1_auroc;task2_dice;task3_r\na;1;1;1\n", "comma-separated"),
        ("team,task1_auroc,task2_dice,task3_r\na,1,1,1\n ,1,1,1\n", "row 3 has no team"),
        ("task1_auroc,task2_dice,task3_r,team\n1,1,1,a\n1\n", "row 3 has no team"),
        ("team,task1_auroc,task2_dice,task3_r\na,1,1,1\n a ,1,1,1\n", "listed twice"),
        ("team,task1_auroc,task2_dice,task3_r\na,1,1,1\na,1,1,1\n", "listed twice"),
        ("name,task1_auroc\na,1\n", "column team"),
        ("team,team,task1_auroc,task2_dice,task3_r\na,b,1,1,1\n", "team is there twice"),
        ("team,rank\na,1\n", "no column of results"),
        ("team,task1_auroc,task1_auroc,task2_dice,task3_r\na,1,.5,1,1\n", "task1_auroc is there twice"),
        ("team,task1_auroc,task2_dice,task3_r\nbaseline_x,1,1,1\n", "no team"),
    ],
)
def test_errors_say_what_to_change(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        run_rank(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_spreadsheet_adds_changes_nothing(tmp_path: Path) -> None:
    plain = "track,team,task1_auroc,task2_dice,task3_r\nm,a,.9,.2,.5\nm,b,.8,.3,.4\n"
    saved = "\ufefftrack, team,task1_auroc,task2_dice,task3_r\nm,a,.9,.2,.5\n,,,,\nm,b ,.8,.3,.4\n,,,,\n,,,,\n"
    tables = []
    for name, text in (("plain", plain), ("saved", saved)):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        run_rank(tmp_path / f"{name}.csv", tmp_path / name)
        tables.append((tmp_path / name / "ranking.csv").read_text())
    assert tables[0] == tables[1]
