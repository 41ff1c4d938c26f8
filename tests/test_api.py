"""The Python API leaves the caller's process as it found it, and loads no more than it needs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ukb_infer import predict, project, read_estimates
from ukb_infer.errors import UkbInferError, UsageError

#: Everything of a process that a library could change behind its caller's back, as text.
STATE = """
import json, locale, logging, multiprocessing, os, random, signal, sys, threading, warnings
# What importing them changes is theirs.
import matplotlib, nibabel, numba, numpy as np, pandas, PIL.Image, pydicom, scipy.optimize, torch, torchvision

def state():
    mask = os.umask(0o77)
    os.umask(mask)
    numbers = [n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)]
    return {
        "environment": dict(os.environ), "folder": os.getcwd(), "umask": mask,
        "locale": locale.setlocale(locale.LC_ALL),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), str(torch.get_default_dtype())),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
                        torch.backends.cudnn.deterministic, torch.get_float32_matmul_precision()),
        "numpy's errors": np.geterr(), "signals": [str(signal.getsignal(n)) for n in numbers],
        "warnings": [str(f) for f in warnings.filters], "logging": (str(logging.root.handlers), logging.root.level),
        "random numbers": (hash(random.getstate()), str(np.random.get_state()), torch.get_rng_state().sum().item()),
        "start of processes": multiprocessing.get_start_method(allow_none=True), "path": list(sys.path),
        "limits": (sys.getrecursionlimit(), PIL.Image.MAX_IMAGE_PIXELS),
        "hooks": (sys.excepthook, threading.excepthook),
        "backend of figures": matplotlib.get_backend(auto_select=False), "streams": (sys.stdout, sys.stderr),
        "settings of pandas": str({k: pandas.get_option(k) for k in ("mode.string_storage", "display.width")}),
        "settings of pydicom": str(vars(pydicom.config.settings)),
    }
"""
CALLS = """
before = state()
import ukb_infer
scan, module, run = sys.argv[1:4]
ukb_infer.project(scan)
ukb_infer.load_module(module)
ukb_infer.predict(scan, run, modules=[module], workers=0, device="cpu")
ukb_infer.read_estimates(run)
after = state()
print(json.dumps({name: [str(before[name]), str(after[name])] for name in before if before[name] != after[name]}))
"""


def fresh(script: str, *arguments: object) -> str:
    """Output of a script in a fresh interpreter without the settings of the tests."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_nothing_of_the_callers_process_changes(small_cohort: Path, tiny_module: Path, tmp_path: Path) -> None:
    scan = small_cohort / "0000001_20201_2_0.zip"
    assert json.loads(fresh(STATE + CALLS, scan, tiny_module, tmp_path / "run")) == {}


@pytest.mark.parametrize(
    ("statements", "absent"),
    [
        ("import ukb_infer", {"numpy", "torch", "pandas"}),
        ("from ukb_infer import project\nproject(sys.argv[1])", {"torch", "pandas"}),
        ("from ukb_infer import read_estimates", {"torch"}),
        ("import ukb_infer.runs.status", {"torch", "pandas", "scipy", "numba", "pydicom"}),
        ("import ukb_infer.inference.project", {"torch", "pandas"}),
        ("import ukb_infer.modules.find", {"torch", "pandas"}),
    ],
)
def test_no_more_is_loaded_than_needed(statements: str, absent: set[str], small_cohort: Path) -> None:
    script = f"import sys\n{statements}\nprint(sorted(sys.modules))"
    loaded = fresh(script, small_cohort / "0000001_20201_2_0.zip")
    assert {name for name in absent if f"'{name}'" in loaded} == set()


@pytest.mark.parametrize(
    "room", ["", ".imaging", ".inference", ".labels", ".modules", ".networks", ".phantom", ".runs"]
)
def test_every_public_name_is_what_the_type_checker_takes_it_for(room: str) -> None:
    package = import_module(f"ukb_infer{room}")
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (typing_only,) = (node for node in tree.body if isinstance(node, ast.If))
    promised = [
        (node.module, name.name) for node in typing_only.body if isinstance(node, ast.ImportFrom) for name in node.names
    ]
    assert promised
    for home, name in promised:
        assert getattr(package, name) is getattr(import_module(str(home)), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": 95}, "`level`: got 95"),
        ({"ci": 0.9}, "`ci`: no option of that name"),
        ({"presicion": "fp32"}, "`presicion`: no option of that name; did you mean precision"),
        ({"dry_run": True}, "`dry_run`: no option of that name"),
        ({"exclude": "nowhere.csv"}, "`exclude`: nowhere.csv is not a file"),
        ({"modules": "phantom-dem"}, r"no module 'phantom-dem'.*did you mean phantom-demo"),
        ({"targets": "wieght"}, "`targets`: no module predicts 'wieght'; did you mean"),
    ],
)
def test_errors_speak_of_arguments_not_of_flags(
    options: dict[str, object], said: str, projections: Path, tiny_module: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"modules": [tiny_module], "device": "cpu"} | options
    with pytest.raises(UkbInferError, match=said) as caught:
        predict(projections / "0000001_20201_2_0.npy", tmp_path / "run", **given)
    assert " --" not in str(caught.value)


def test_a_number_of_stations_that_cannot_be_is_refused(projections: Path) -> None:
    with pytest.raises(UsageError, match="`expected_stations`: got -7"):
        project(projections / "0000001_20201_2_0.npy", expected_stations=-7)


def test_a_path_that_does_not_exist_is_called_by_its_argument(tiny_module: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^`paths`: nowhere does not exist"):
        predict("nowhere", tmp_path / "run", modules=tiny_module)


def test_warnings_come_with_the_frame(projections: Path, tiny_module: Path, tmp_path: Path) -> None:
    withdrawn = tmp_path / "w.csv"
    withdrawn.write_text("999\n")
    frame = predict(projections / "0000001_20201_2_0.npy", modules=tiny_module, targets="weight", exclude=withdrawn)
    assert any("none of its 1 ids matches" in words for words in frame.attrs["warnings"])
    assert list(frame.filter(like="_mean")) == ["weight_mean"]


def test_estimates_join_a_table_by_eid_without_a_warning(projections: Path, tmp_path: Path) -> None:
    """pandas warns of frames with more than a hundred blocks as soon as a column is added."""
    predict(projections / "0000001_20201_2_0.npy", tmp_path / "run", modules="phantom-demo", device="cpu")
    frame = read_estimates(tmp_path / "run")
    labels = pd.DataFrame({"eid": ["0000001"], "smoker": [1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame["bmi"] = frame["weight_mean"] / (frame["height_mean"] / 100) ** 2
        joined = frame.join(labels.set_index("eid"), on="eid")
        assert frame.reset_index().merge(labels, on="eid")["smoker"].tolist() == [1]
    assert joined["smoker"].tolist() == [1]
    assert 10 < joined["bmi"].iloc[0] < 60
