"""Limits: read from TOML, applied to a run in any order, adjusted for body size."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from ukb_infer.errors import UsageError
from ukb_infer.quality.judge import Judge
from ukb_infer.quality.limits import REASONS, read_spec
from ukb_infer.reasons import Reason
from ukb_infer.targets import TARGETS

Scan = dict[str, float | str]


def run_of(count: int, seed: int = 0) -> list[Scan]:
    """Scans whose noise grows with the body: 20 - 0.1 a litre, scattered by 0.2."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(40.0, 120.0, count)
    return [
        {"body_volume": float(s), "snr": 1.0, "snr_1": 20.0 - 0.1 * s + 0.2 * float(rng.normal()), "scanner": "A"}
        for s in sizes
    ]


def limits(folder: Path, text: str) -> Path:
    path = folder / "limits.toml"
    path.write_text(text)
    return path


ONLY_SNR = """
[low_signal_to_noise]
below = -1000.0
mads_below = 8.0
margin = 0.5
"""


def test_a_physical_limit_says_measure_value_and_limit() -> None:
    judge = Judge(read_spec())
    (flag,) = judge.flags({"coverage_knee": 3.25, "coverage_shoulder": 80.0})
    assert flag.reason is Reason.KNEE_MISSING
    assert flag.message == "coverage_knee is 3.25 mm, expected at least 10"
    assert flag.limit.level == "targets"
    assert flag.limit.touches("AtlasTotalThighMuscleVolume")
    assert flag.limit.touches("DxaLegLeanMassLeft")
    assert not flag.limit.touches("liverFat")
    assert judge.flags({"coverage_knee": 10.0}) == ()


def test_stations_are_judged_each_and_summaries_are_not() -> None:
    (flag,) = Judge(read_spec()).flags({"empty": 0.9, "empty_2": 0.5, "empty_3": 0.0, "empty_4": 0.25})
    assert flag.message == "empty_2 is 0.5, expected at most 0; empty_4 is 0.25, expected at most 0"
    assert Judge(read_spec()).flags({"empty": 0.9}) == ()


def test_the_gravest_flag_comes_first() -> None:
    flags = Judge(read_spec()).flags({"coverage_knee": 0.0, "empty_2": 0.5, "off_centre_1": 90.0})
    assert [f.limit.level for f in flags] == ["unusable", "targets", "note"]


def test_a_relative_limit_is_one_of_the_run_at_this_body_size(tmp_path: Path) -> None:
    scans = run_of(400)
    judge = Judge(read_spec(limits(tmp_path, ONLY_SNR)), scans)
    assert not any(judge.flags(scan) for scan in scans)  # the largest bodies have half the value of the smallest
    (flag,) = judge.flags({"body_volume": 50.0, "snr_1": 10.0})  # usual at 100 litres, not at 50
    assert flag.reason is Reason.LOW_SIGNAL_TO_NOISE
    assert flag.message.startswith("snr_1 is 10, expected at least 1")
    assert flag.message.endswith("is usual in 400 scans at this body size")
    assert judge.flags({"body_volume": 100.0, "snr_1": 10.0}) == ()
    assert judge.flags({"snr_1": -5.0}) == ()  # nothing tells its size


def test_flags_do_not_depend_on_the_order_of_the_scans(tmp_path: Path) -> None:
    scans = run_of(300)
    scans += [scan | {"snr_1": 3.0} for scan in scans[:5]]
    spec = read_spec(limits(tmp_path, ONLY_SNR))
    one, other = Judge(spec, scans), Judge(spec, reversed(scans))
    assert [one.flags(s) for s in scans] == [other.flags(s) for s in scans]
    assert sum(bool(one.flags(s)) for s in scans) == 5


def test_a_small_run_has_no_relative_limits(tmp_path: Path) -> None:
    spec = read_spec(limits(tmp_path, ONLY_SNR))
    assert Judge(spec, run_of(19)).flags({"body_volume": 50.0, "snr_1": -500.0}) == ()
    assert Judge(spec, run_of(20)).flags({"body_volume": 50.0, "snr_1": -500.0})


def test_a_file_changes_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    default = read_spec()
    text = '[knee_missing]\nbelow = 40.0\n[shoulder_missing]\nlevel = "note"\n[saturated]\nlevel = "off"\n'
    spec = read_spec(limits(tmp_path, text))
    assert spec.limits["knee_missing"].below == 40.0
    assert spec.limits["knee_missing"].targets == default.limits["knee_missing"].targets
    assert spec.limits["shoulder_missing"].targets == ()
    assert spec.limits["metal"] == default.limits["metal"]
    assert Judge(spec).flags({"saturated_1": 0.9}) == ()
    narrowed = read_spec(limits(tmp_path, "[off_centre]\nstations = [2]\n"))
    assert Judge(narrowed).flags({"off_centre_1": 90.0}) == ()
    assert Judge(narrowed).flags({"off_centre_2": 90.0})
    assert read_spec(limits(tmp_path, "\ufeff[metal]\nmargin = 5.0\n")).limits["metal"].margin == 5.0  # of Windows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[nee_missing]\nbelow = 1.0", "no limit raises 'nee_missing'.*knee_missing"),
        ("[knee_missing]\nbelo = 1.0", r"\[knee_missing\]: belo: Extra inputs"),
        ('[knee_missing]\nbelow = "x"', r"\[knee_missing\]: below: .*'x'"),
        ("[knee_missing]\nbelow = nan", r"\[knee_missing\]: below: .*finite"),
        ('[metal]\nmeasures = ["viod"]', "no number is called 'viod'.*void"),
        ('[metal]\nmeasures = ["scanner"]', "no number is called 'scanner'"),
        ('[metal]\nlevel = "targets"', "targets: expected with level"),
        ('[metal]\nlevel = "bad"', "level: .*'bad'"),
        ("[metal]\nmargin = -1.0", "expected at least 0"),
        ("[size_mismatch]\nbelow = 1.0", "no limit raises 'size_mismatch'"),
        ("below = 1", "below stands outside the tables"),
        ("[", "is no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"`quality`: .*limits\.toml.*{words}"):
        read_spec(limits(tmp_path, text))


def test_what_is_required_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`quality`: .*cannot be read"):
        read_spec(tmp_path / "none.toml")
    for text, words in (('reasons = ["x"]', "no limit raises 'x'"), ("all = true", "all: Extra"), ("[", "no TOML")):
        with pytest.raises(UsageError, match=f"`require_quality`: .*{words}"):
            read_spec(None, limits(tmp_path, text))
    spec = read_spec(None, limits(tmp_path, 'reasons = ["metal"]\nlevels = ["unusable"]\n'))
    judge = Judge(spec)
    (grave,) = judge.flags({"empty_2": 0.5})
    (note,) = judge.flags({"off_centre_2": 500.0})
    assert (judge.fails(grave), judge.fails(note)) == (True, False)
    assert Judge(read_spec(strict=True)).fails(note)


def test_every_quality_reason_has_a_default_limit_and_known_targets() -> None:
    spec = read_spec()
    assert set(spec.limits) == set(REASONS)
    for limit in spec.limits.values():
        for pattern in limit.targets:
            assert any(fnmatchcase(name, pattern) for name in TARGETS), pattern
    assert type(spec).from_journal(spec.to_plain()) == spec
