"""Fat-water swaps of phantoms: found, flagged, corrected, written; nothing touched where there is none or a doubt."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ukb_infer
from ukb_infer.cli.app import app
from ukb_infer.errors import ScanError, UsageError
from ukb_infer.imaging import project_stations
from ukb_infer.inference import ProjectConfig, run_project
from ukb_infer.phantom import render, sample_subject, write_scan
from ukb_infer.quality import inspect_scan
from ukb_infer.reasons import Reason
from ukb_infer.records import Station, Stations
from ukb_infer.runs import read_run

SUBJECT = sample_subject(77, 3)
STATIONS = render(SUBJECT, "small").stations
NAME = "0000001_20201_2_0"


def exchanged(stations: Sequence[Station], *which: tuple[int, str], share: float = 1.0) -> tuple[Station, ...]:
    """Swap stations, legs left or right of the body's middle, or the lower ``share`` of a station's slices."""
    made = list(stations)
    for number, part in which:
        own = made[number - 1]
        x = float(own.position_mm[0]) + float(own.spacing_mm[1]) * np.arange(own.shape[1])
        side = {"left": x > SUBJECT.offset_x_mm, "right": x <= SUBJECT.offset_x_mm}.get(part, np.full(x.shape, True))
        slices = np.arange(own.shape[2]) >= round((1.0 - share) * own.shape[2])
        chosen = side[None, :, None] & slices
        water, fat = np.where(chosen, own.fat, own.water), np.where(chosen, own.water, own.fat)
        made[number - 1] = replace(own, water=water, fat=fat)
    return tuple(made)


def told(stations: Sequence[Station], mode: Any = "flag") -> tuple[list[str], list[str], Stations]:
    """Kinds and actions of all stations, and the scan."""
    scan, measures = inspect_scan(Stations(tuple(stations)), mode)
    numbers = range(1, len(stations) + 1)
    return [str(measures[f"swap_{k}"]) for k in numbers], [str(measures[f"swap_{k}_action"]) for k in numbers], scan


def meanings(run: Path) -> dict[str, str]:
    with (run / "dictionary.csv").open(newline="") as handle:
        return {row["column"]: row["meaning"] for row in csv.DictReader(handle)}


WHOLE = [((k, "whole"),) for k in range(1, 5)]
LEGS = [((k, side),) for k in (5, 6) for side in ("left", "right", "both")]
SEVERAL: list[tuple[tuple[int, str], ...]] = [
    ((5, "left"), (6, "left")), ((5, "right"), (6, "right")), ((2, "whole"), (3, "whole")),
    ((2, "whole"), (5, "right"), (6, "right")),
    ((1, "whole"), (2, "whole"), (3, "whole"), (4, "whole"), (5, "both"), (6, "both")),
]  # fmt: skip


@pytest.mark.parametrize("which", [*WHOLE, *LEGS, *SEVERAL], ids=str)
def test_swaps_are_found_and_corrected_to_the_last_voxel(which: tuple[tuple[int, str], ...]) -> None:
    stations = exchanged(STATIONS, *which)
    expected = dict(which)
    kinds, actions, scan = told(stations)
    assert kinds == [expected.get(k, "none") for k in range(1, 7)]
    assert actions == ["flagged" if k in expected else "none" for k in range(1, 7)]
    assert all(a.water is b.water for a, b in zip(scan.stations, stations, strict=True))
    kinds, actions, scan = told(stations, "correct")
    assert actions == ["corrected" if k in expected else "none" for k in range(1, 7)]
    differ = np.abs(project_stations(scan.stations).astype(int) - project_stations(STATIONS)) > 1
    assert differ.mean() <= 1e-3
    legs = {kind in ("left", "right") for kind in expected.values()}
    found = {Reason.FAT_WATER_SWAP_LEG if leg else Reason.FAT_WATER_SWAP for leg in legs}
    assert set(scan.flags) == found
    assert [swap["Station"] for swap in scan.swaps or ()] == sorted(expected)


@pytest.mark.parametrize("index", [3, 4])  # the left leg, the right one
def test_a_leg_of_a_body_that_lies_askew_is_corrected_along_the_cleft(index: int) -> None:
    subject = replace(sample_subject(77, index), adiposity=2.0, lean_x=0.015, offset_x_mm=7.0)
    effect = frozenset({Reason.FAT_WATER_SWAP_LEG})
    plain, swapped = (render(subject, "small", effects).stations for effects in (frozenset(), effect))
    kinds, actions, scan = told(swapped, "correct")
    assert kinds[4:] == ["left" if index % 2 else "right"] * 2
    assert actions[4:] == ["corrected"] * 2
    changed = (scan.stations[4].water != swapped[4].water).any(axis=0)
    ends = changed.argmax(axis=0) if index % 2 else len(changed) - changed[::-1].argmax(axis=0)
    assert ends[0] > ends[-1]  # the border leans to the right on its way down, as the body does
    differ = np.abs(project_stations(scan.stations).astype(int) - project_stations(plain)) > 1
    assert differ.mean() <= 1e-3


def test_messages_name_station_and_side() -> None:
    _, _, scan = told(exchanged(STATIONS, (2, "whole"), (5, "left"), (6, "left")), "correct")
    assert scan.messages == (
        "water and fat of station 2 are swapped: corrected",
        "water and fat of station 5, left leg are swapped: corrected; "
        "water and fat of station 6, left leg are swapped: corrected",
    )


@pytest.mark.parametrize("mode", ["flag", "correct"])
def test_a_scan_without_a_swap_stays_as_it_is(mode: str) -> None:
    kinds, actions, scan = told(STATIONS, mode)
    assert (set(kinds), set(actions)) == ({"none"}, {"none"})
    assert all(a is b for a, b in zip(scan.stations, STATIONS, strict=True))
    assert (scan.flags, scan.swaps) == ((), ())
    ignored, measures = inspect_scan(Stations(STATIONS), "ignore")
    assert ignored.swaps is None
    assert not any(name.startswith("swap") for name in measures)


def test_a_slab_is_a_part_and_never_corrected() -> None:
    kinds, actions, scan = told(exchanged(STATIONS, (3, "whole"), share=0.5), "correct")
    assert (kinds[2], actions[2]) == ("part", "flagged")
    assert "corrected" not in actions
    assert "station 3, a region" in scan.messages[0]


def exchanged_where(stations: Sequence[Station], number: int, chosen: Any) -> tuple[Station, ...]:
    """Swap the voxels of a station that ``chosen`` (places x, y, z from its first voxel's corner, mm) picks."""
    own = stations[number - 1]
    y, x, z = np.meshgrid(*(s * np.arange(n) for s, n in zip(own.spacing_mm, own.shape, strict=True)), indexing="ij")
    inside = chosen(x + float(own.position_mm[0]), y, z)
    made = replace(
        own, water=np.where(inside, own.fat, own.water), fat=np.where(inside, own.water, own.fat)
    )  # fmt: skip
    return (*stations[: number - 1], made, *stations[number:])


def test_an_arm_is_told_by_the_seams_and_flagged() -> None:
    arm_mm = 170.0  # the phantom's arms hang farther out
    kinds, actions, scan = told(exchanged_where(STATIONS, 3, lambda x, y, z: x > arm_mm), "correct")
    assert kinds == ["none", "none", "part", "none", "none", "none"]
    assert actions[2] == "flagged"
    assert scan.flags == (Reason.FAT_WATER_SWAP,)


def test_a_liver_dome_is_told_by_its_slices_and_flagged() -> None:
    rows = STATIONS[2].shape[0] * float(STATIONS[2].spacing_mm[0])
    slices = STATIONS[2].shape[2] * float(STATIONS[2].spacing_mm[2])
    kinds, actions, _ = told(
        exchanged_where(
            STATIONS, 3,
            lambda x, y, z: (x - SUBJECT.offset_x_mm + 70) ** 2 + (y - rows / 2) ** 2 + (z - slices / 2) ** 2 < 60**2,
        ), "correct",
    )  # fmt: skip
    assert kinds == ["none", "none", "part", "none", "none", "none"]
    assert actions[2] == "flagged"


def test_a_participant_who_moved_has_no_swapped_region() -> None:
    moved = render(SUBJECT, "small", frozenset({Reason.SEAM_MISMATCH})).stations
    assert set(told(moved)[0]) == {"none"}


def test_metal_is_flagged_and_never_corrected() -> None:
    stations = exchanged(render(SUBJECT, "small", frozenset({Reason.METAL})).stations, (4, "whole"))
    _, actions, scan = told(stations, "correct")
    assert actions[3] == "flagged"
    assert scan.stations[3] is stations[3]


def test_the_thinnest_keep_what_is_not_sure() -> None:
    """Calves without a shell are not corrected: at most flagged."""
    thin = min((sample_subject(78, k) for k in range(1000)), key=lambda s: s.adiposity)
    stations = exchanged(render(thin, "small").stations, (6, "both"))
    _, actions, _ = told(stations, "correct")
    assert actions[5] != "corrected"


def test_fewer_stations_than_the_protocols_are_never_corrected() -> None:
    _, actions, _ = told(exchanged(STATIONS, (2, "whole"))[:4], "correct")
    assert actions == ["none", "flagged", "none", "none"]


def test_a_run_writes_what_it_found_and_corrects_on_request(tmp_path: Path) -> None:
    good = write_scan(STATIONS, tmp_path, NAME)
    bad = write_scan(exchanged(STATIONS, (3, "whole")), tmp_path, NAME.replace("1_", "2_", 1))
    runs = {mode: ProjectConfig((str(good), str(bad)), tmp_path / mode, workers=0, swaps=mode)
            for mode in ("flag", "correct", "ignore")}  # fmt: skip
    for config in runs.values():
        run_project(config)
    images = {(mode, path.stem): np.load(tmp_path / mode / f"{path.stem}.npy") for mode in runs for path in (good, bad)}
    assert np.array_equal(images["flag", bad.stem], images["ignore", bad.stem])
    assert not np.array_equal(images["correct", bad.stem], images["ignore", bad.stem])
    assert np.array_equal(images["correct", bad.stem], images["correct", good.stem])
    files = [(tmp_path / mode / f"{good.stem}.npy").read_bytes() for mode in runs]
    assert files[0] == files[1] == files[2]
    with (tmp_path / "correct/quality.csv").open(newline="") as handle:
        row = {r["scan"]: r for r in csv.DictReader(handle)}[bad.stem]
    assert (row["swap_3"], row["swap_3_action"], row["swap_2"]) == ("whole", "corrected", "none")
    assert float(row["swap_3_confidence"]) > 0.99
    dictionary = meanings(tmp_path / "flag")
    assert dictionary["swap_3_action"].endswith("(none, flagged, corrected) of station 3")
    assert "swap_1" not in meanings(tmp_path / "ignore")
    status = {scan.key.scan: scan.result for scan in read_run(tmp_path / "correct").scans}
    assert status[bad.stem].reasons == (Reason.FAT_WATER_SWAP,)
    assert status[good.stem].status == "ok"
    with pytest.raises(UsageError, match="swaps"):  # corrected pixels are part of what a run is
        run_project(replace(runs["correct"], swaps="flag"))
    assert run_project(replace(runs["ignore"], swaps="flag")).computed == 0


def test_a_swap_that_is_left_fails_where_that_is_required(tmp_path: Path) -> None:
    good = write_scan(STATIONS, tmp_path, NAME)
    bad = write_scan(exchanged(STATIONS, (3, "whole")), tmp_path, NAME.replace("1_", "2_", 1))
    legs = write_scan(exchanged(STATIONS, (5, "left")), tmp_path, NAME.replace("1_", "3_", 1))
    required = tmp_path / "required.toml"
    required.write_text('reasons = ["fat_water_swap"]\n')
    for mode, failing in (("flag", {bad.stem}), ("correct", set())):
        config = ProjectConfig(
            tuple(map(str, (good, bad, legs))), tmp_path / mode, workers=0, swaps=mode, require_quality=required,  # type: ignore[arg-type]
        )  # fmt: skip
        assert run_project(config).exit_code == (3 if failing else 0)
        found = {scan.key.scan: scan.result for scan in read_run(tmp_path / mode).scans}
        assert {name for name, result in found.items() if result.status == "failed"} == failing
        assert found[bad.stem].reasons[0] is Reason.FAT_WATER_SWAP
    assert "station 3 are swapped: flagged" in (tmp_path / "flag/scans.csv").read_text()


def _command(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def one_swapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a scan without a swap and one with, and the name of the latter."""
    folder = tmp_path_factory.mktemp("scans")
    write_scan(STATIONS, folder, NAME)
    return folder, write_scan(exchanged(STATIONS, (3, "whole")), folder, NAME.replace("1_", "2_", 1)).stem


def test_a_corrected_projection_can_be_undone(one_swapped: tuple[Path, str], tiny_module: Path, tmp_path: Path) -> None:
    scans, bad = one_swapped
    _command("project", scans, "--out", tmp_path / "flag", "--workers", 0)
    scanned = np.load(tmp_path / f"flag/{bad}.npy")
    correct = ("--swaps", "correct", "--keep-uncorrected", "--workers", 0)
    predict = ("predict", scans, "--out", tmp_path / "run", "--modules", tiny_module)
    for command, folder in (
        (("project", scans, "--out", tmp_path / "project"), tmp_path / "project"),
        (predict, tmp_path / "run/uncorrected"),
    ):
        done = _command(*command, *correct)
        assert done.exit_code == 0, done.output
        (kept,) = folder.rglob("*.uncorrected.npz")
        assert kept.name == f"{bad}.uncorrected.npz"
        assert np.array_equal(np.load(kept)["image"], scanned)
    assert not np.array_equal(np.load(tmp_path / f"project/{bad}.npy"), scanned)
    refused = _command(*predict, "--swaps", "correct")  # another run
    assert isinstance(refused.exception, UsageError)
    assert "--keep-uncorrected: True before" in str(refused.exception)
    done = _command(*predict, "--swaps", "correct", "--overwrite")
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "run").rglob("*.npz"))


def test_shards_of_predict_bring_what_they_kept(
    one_swapped: tuple[Path, str], tiny_module: Path, tmp_path: Path
) -> None:
    scans, bad = one_swapped
    shards = [tmp_path / f"shard{k}" for k in (1, 2)]
    for k, shard in enumerate(shards, start=1):
        _command("predict", scans, "--out", shard, "--shard", f"{k}/2", "--modules", tiny_module, "--workers", 0,
                 "--swaps", "correct", "--keep-uncorrected")  # fmt: skip
    done = _command("merge", *shards, "--out", tmp_path / "all")
    assert done.exit_code == 0, done.output
    assert [p.name for p in (tmp_path / "all/uncorrected").iterdir()] == [f"{bad}.uncorrected.npz"]


def test_a_corrected_body_can_be_undone(one_swapped: tuple[Path, str], tmp_path: Path) -> None:
    scans, bad = one_swapped
    for name, options in (
        ("flag", ()), ("correct", ("--swaps", "correct")),
        ("kept", ("--swaps", "correct", "--keep-uncorrected")),
    ):  # fmt: skip
        done = _command("stitch", scans, "--out", tmp_path / name, "--contrasts", "water,fraction", "--workers", 0,
                        "--spacing", 8, *options)  # fmt: skip
        assert done.exit_code == 0, done.output
    fused, kept = (
        sorted(p.name for p in (tmp_path / "kept").rglob(f"*_desc-{what}_*")) for what in ("fused", "uncorrected")
    )
    assert len(fused) == 8
    assert [name.split("_")[0] for name in kept] == [f"sub-{bad.split('_')[0]}"] * 4
    for path in (tmp_path / "kept").rglob("*_desc-*"):
        other = "flag" if "uncorrected" in path.name else "correct"
        plain = (
            tmp_path / other / path.relative_to(tmp_path / "kept").with_name(path.name.replace("uncorrected", "fused"))
        )
        assert path.read_bytes() == plain.read_bytes()
    again = _command("stitch", scans, "--out", tmp_path / "kept", "--contrasts", "water,fraction", "--workers", 0,
                     "--spacing", 8, "--swaps", "correct", "--overwrite")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert not list((tmp_path / "kept").rglob("*_desc-uncorrected_*"))


@pytest.mark.parametrize("command", ["project", "predict", "stitch"])
def test_nothing_is_kept_where_nothing_is_corrected(
    one_swapped: tuple[Path, str], command: str, tmp_path: Path
) -> None:
    done = _command(command, one_swapped[0], "--out", tmp_path / "run", "--keep-uncorrected")
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == "--keep-uncorrected needs --swaps correct; without it nothing is corrected"


def test_python_api_and_fused_bodies(tmp_path: Path) -> None:
    bad = write_scan(exchanged(STATIONS, (3, "whole")), tmp_path, NAME)
    assert ukb_infer.project(bad).flags == (Reason.FAT_WATER_SWAP,)
    made = ukb_infer.stitch(bad, swaps="correct", keep_uncorrected=True)
    assert made.uncorrected is not None
    assert np.array_equal(made.uncorrected.image("fat"), ukb_infer.stitch(bad).image("fat"))
    assert ukb_infer.stitch(bad, swaps="correct").uncorrected is None
    corrected = ukb_infer.project(bad, swaps="correct", keep_uncorrected=True)
    assert np.array_equal(corrected.uncorrected, ukb_infer.project(bad).image)
    assert json.loads(json.dumps([dict(swap) for swap in made.scan.swaps or ()]))[0]["Action"] == "corrected"
    with pytest.raises(ScanError, match="strict"):
        ukb_infer.project(bad, strict=True)
    with pytest.raises(UsageError, match="expected flag, correct or ignore"):
        ukb_infer.project(bad, swaps="maybe")  # type: ignore[arg-type]
