"""Good and bad containers, as plain commands."""

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support.few_shot import write_case
from ukb_infer.errors import UsageError
from ukb_infer.tasks.containers import ContainerConfig, Engine, choose_engine, run_container
from ukb_infer.tasks.outputs import Fault

INFARCT, MENINGIOMA, PROBE = "fomo25-infarct", "fomo25-meningioma", "fomo26-probe"

#: What every container does before it goes its own way: read its flags.
HEAD = """\
import argparse, gzip, os, pathlib, shutil, sys, time
p = argparse.ArgumentParser()
for flag in ("--flair", "--adc", "--dwi_b1000", "--t2s", "--swi", "--t1", "--t2", "--dwi", "--input", "--output"):
    p.add_argument(flag, type=pathlib.Path)
a = p.parse_args()
out = a.output
def mask(change=lambda d: d, affine=None, dtype="uint8"):
    import nibabel as nib, numpy as np
    first = nib.load(a.flair)
    data = np.zeros(first.shape, dtype)
    data[2:4, 2:4, 2:4] = 1
    nib.save(nib.Nifti1Image(change(data), first.affine if affine is None else affine), out)
"""

#: Name: task, what it does, and the fault that it must be caught for; None for a good one.
CONTAINERS = {
    "good number": (INFARCT, "out.write_text('0.25\\n')", None),
    "good mask": (MENINGIOMA, "mask()", None),
    "good empty mask": (MENINGIOMA, "mask(lambda d: d * 0)", None),
    "good whole numbers as floats": (MENINGIOMA, "mask(dtype='float64')", None),
    "good embedding": (PROBE, "import numpy as np\nnp.save(out, np.ones(4, 'float32'))", None),
    "good age": ("fomo25-brain-age", "assert a.t1 and a.t2\nout.write_text('61.5')", None),
    "good without writing elsewhere": (INFARCT, "pathlib.Path('scratch').write_text('x')\nout.write_text('1')", None),
    "writes nothing": (INFARCT, "pass", Fault.NO_OUTPUT),
    "stale output": (INFARCT, "out.write_text('0.5')\nos.utime(out, (1e9, 1e9))", Fault.STALE_OUTPUT),
    "NaN": (INFARCT, "out.write_text('nan')", Fault.NOT_FINITE),
    "infinite": (INFARCT, "out.write_text('-inf')", Fault.NOT_FINITE),
    "out of range": (INFARCT, "out.write_text('1.01')", Fault.OUT_OF_RANGE),
    "impossible age": ("fomo25-brain-age", "out.write_text('640')", Fault.OUT_OF_RANGE),
    "text": (INFARCT, "out.write_text('infarct')", Fault.NOT_A_NUMBER),
    "empty text": (INFARCT, "out.write_text('')", Fault.NOT_A_NUMBER),
    "not text": (INFARCT, "out.write_bytes(bytes(range(200, 256)))", Fault.NOT_A_NUMBER),
    "two numbers": (INFARCT, "out.write_text('0.2 0.8')", Fault.SEVERAL_NUMBERS),
    "wrong shape": (MENINGIOMA, "mask(lambda d: d[:-1])", Fault.WRONG_SHAPE),
    "four dimensions": (MENINGIOMA, "mask(lambda d: d[..., None])", Fault.WRONG_SHAPE),
    "wrong affine": (MENINGIOMA, "import numpy as np\nmask(affine=np.eye(4))", Fault.WRONG_AFFINE),
    "labels unknown": (MENINGIOMA, "mask(lambda d: d * 2)", Fault.UNKNOWN_LABEL),
    "negative label": (MENINGIOMA, "mask(lambda d: -d, dtype='int16')", Fault.UNKNOWN_LABEL),
    "probabilities": (MENINGIOMA, "mask(lambda d: d * 0.7, dtype='float32')", Fault.NOT_LABELS),
    "NaN in the mask": (MENINGIOMA, "mask(lambda d: d / d, dtype='float32')", Fault.NOT_FINITE),
    "too slow": (INFARCT, "out.write_text('0.5')\ntime.sleep(60)", Fault.TIMEOUT),
    "error after writing": (INFARCT, "out.write_text('0.5')\nsys.exit('no GPU')", Fault.EXIT_CODE),
    "killed": (INFARCT, "out.write_text('0.5')\nos.kill(os.getpid(), 9)", Fault.EXIT_CODE),
    "truncated gzip": (MENINGIOMA, "mask()\nout.write_bytes(out.read_bytes()[:-9])", Fault.UNREADABLE),
    "checksum": (
        MENINGIOMA,
        "mask()\nb = out.read_bytes()\nout.write_bytes(b[:-8] + b'0000' + b[-4:])",
        Fault.UNREADABLE,
    ),
    "no NIfTI": (MENINGIOMA, "out.write_bytes(gzip.compress(b'hello'))", Fault.UNREADABLE),
    "writes to the input": (
        INFARCT,
        "a.adc.chmod(0o644)\na.adc.write_text('x')\nout.write_text('0.5')",
        Fault.CHANGED_INPUT,
    ),
    "adds to the input": (
        INFARCT,
        "a.adc.parent.chmod(0o755)\n(a.adc.parent / 'new').write_text('x')\nout.write_text('0.5')",
        Fault.CHANGED_INPUT,
    ),
    "wrong name": (INFARCT, "(out.parent / 'output.txt').write_text('0.5')", Fault.WRONG_NAME),
    "a link": (INFARCT, "out.symlink_to('/etc/hostname')", Fault.NO_OUTPUT),
    "a folder": (INFARCT, "out.mkdir()", Fault.NO_OUTPUT),
    "embedding of two dimensions": (PROBE, "import numpy as np\nnp.save(out, np.ones((1, 4)))", Fault.WRONG_SHAPE),
    "embedding of objects": (PROBE, "import numpy as np\nnp.save(out, np.array([{}]))", Fault.UNREADABLE),
    "embedding of integers": (PROBE, "import numpy as np\nnp.save(out, np.ones(4, int))", Fault.NOT_A_NUMBER),
    "NaN embedding": (PROBE, "import numpy as np\nnp.save(out, np.full(4, np.nan))", Fault.NOT_FINITE),
}  # fmt: skip


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_case(folder, "sub_01", ("flair", "adc", "dwi_b1000", "t2s", "t1", "t2"))
    return folder


def script(folder: Path, body: str) -> str:
    path = folder / "predict.py"
    path.write_text(HEAD + body + "\n")
    return f"{sys.executable} {path}"


def table(out: Path) -> list[dict[str, str]]:
    with (out / "faults.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_judged_for_its_reason(name: str, cases: Path, tmp_path: Path) -> None:
    task, body, fault = CONTAINERS[name]
    suffix = {INFARCT: ".txt", MENINGIOMA: ".nii.gz", PROBE: ".npy"}.get(task, ".txt")
    before = {p: p.read_bytes() for p in cases.rglob("*") if p.is_file()}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"sub_01{suffix}").write_text("0.99")  # of an earlier run
    limit_s = 1.0 if fault is Fault.TIMEOUT else 60.0
    report = run_container(
        ContainerConfig(image=script(tmp_path, body), data=cases, task=task, out=tmp_path / "out", limit_s=limit_s)
    )
    (run,) = report.cases
    assert run.fault is fault, run.message
    assert report.exit_code == (0 if fault is None else 3)
    (row,) = table(tmp_path / "out")
    assert (row["status"], row["fault"]) == (("ok", "") if fault is None else ("failed", fault.value))
    assert (tmp_path / "out" / f"sub_01{suffix}").exists() == (fault is None)  # nothing stale, nothing faulty
    assert {p: p.read_bytes() for p in cases.rglob("*") if p.is_file()} == before


def test_every_case_is_counted(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "sub_01", ("flair", "adc", "dwi_b1000", "swi"))
    write_case(tmp_path / "data", "sub_02", ("flair", "dwi_b1000", "swi"))
    write_case(tmp_path / "data", "sub_03", ("flair", "adc", "dwi_b1000", "t2s"))
    body = "assert bool(a.swi) != bool(a.t2s)\nout.write_text('0.5') if a.swi else sys.exit('broken')"
    report = run_container(
        ContainerConfig(image=script(tmp_path, body), data=tmp_path / "data", task=INFARCT, out=tmp_path / "out")
    )
    assert [run.fault for run in report.cases] == [None, Fault.NO_INPUT, Fault.EXIT_CODE]
    assert report.faults == {Fault.NO_INPUT: 1, Fault.EXIT_CODE: 1}
    assert [p.name for p in sorted((tmp_path / "out").glob("*.txt"))] == ["sub_01.txt"]
    assert "broken" in (tmp_path / "out" / "logs" / "sub_03.log").read_text()
    assert "broken" in table(tmp_path / "out")[2]["message"]


def test_a_mask_may_agree_with_any_image_of_the_case(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "sub_01", ("flair", "dwi_b1000", "t2s"))
    other = tmp_path / "data" / "preprocessed" / "sub_01" / "ses_1" / "flair.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7)).astype("f4"), np.eye(4)), other)
    body = "a.flair = a.dwi_b1000\nmask()"
    report = run_container(
        ContainerConfig(image=script(tmp_path, body), data=tmp_path / "data", task=MENINGIOMA, out=tmp_path / "out")
    )
    assert report.exit_code == 0


def test_containers_are_called_as_the_challenge_does(tmp_path: Path) -> None:
    flags = {"--flair": "flair.nii.gz", "--t2s": "t2s.nii.gz"}
    call = Engine("apptainer", ("/c.sif",), True).call(flags, "sub_01.txt", Path("/in"), Path("/to"), "x")
    assert " ".join(call) == (
        "apptainer exec --nv --bind /in:/input:ro --bind /to:/output /c.sif python /app/predict.py "
        "--flair /input/ses_1/flair.nii.gz --t2s /input/ses_1/t2s.nii.gz --output /output/sub_01.txt"
    )
    call = Engine("podman", ("image:1",)).call(flags, "sub_01.txt", Path("/in"), Path("/to"), "x")
    assert " ".join(call) == (
        "podman run --rm --name x --network none --volume /in:/input:ro --volume /to:/output --entrypoint python "
        "image:1 /app/predict.py --flair /input/ses_1/flair.nii.gz --t2s /input/ses_1/t2s.nii.gz "
        "--output /output/sub_01.txt"
    )


def test_what_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(image: str, engine: str = "auto") -> Engine:
        return choose_engine(ContainerConfig(image=image, data=tmp_path, task=INFARCT, out=tmp_path, engine=engine))

    monkeypatch.chdir(tmp_path)
    Path("predict.py").touch()
    assert engine("sh predict.py --fast") == Engine("command", ("sh", str(tmp_path / "predict.py"), "--fast"))
    for name in ("apptainer", "podman"):
        Path(name).write_text("#!/bin/sh\n")
        Path(name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    Path("c.sif").touch()
    assert engine("c.sif") == Engine("apptainer", (str(tmp_path / "c.sif"),))
    assert engine("image:1") == Engine("podman", ("image:1",))
    Path("docker").write_text("#!/bin/sh\nexit 1\n")  # installed, but nothing answers it
    Path("docker").chmod(0o755)
    assert engine("image:1") == Engine("podman", ("image:1",))
    Path("podman").unlink()
    with pytest.raises(UsageError, match="nor an image that docker has; build or load it first"):
        engine("image:1")
    Path("docker").unlink()
    for image, said in (("image:1", "not installed"), ("none.sif", "does not exist"), ("", "an image or a command")):
        with pytest.raises(UsageError, match=said):
            engine(image)
    with pytest.raises(UsageError, match="not a program"):
        engine("image:1", "command")


def test_an_engine_that_fails_is_not_blamed_on_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(tmp_path / "data", "sub_01", ("flair", "dwi_b1000", "t2s"))
    engine = tmp_path / "podman"
    engine.write_text('#!/bin/sh\n[ "$1" = image ] && exit 0\necho "Error: no cgroups"\necho see --help\nexit 125\n')
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = ContainerConfig(
        image="image:1", data=tmp_path / "data", task=MENINGIOMA, out=tmp_path / "out", engine="podman"
    )
    (case,) = run_container(config).cases
    assert (case.fault, case.message) == (Fault.NOT_STARTED, "Error: no cgroups")


def test_a_task_without_flags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no container contract"):
        run_container(ContainerConfig(image="sh", data=tmp_path, task="body-vat", out=tmp_path))


def test_an_image_that_cannot_be_read_is_a_fault_of_its_case(tmp_path: Path) -> None:
    for name in ("sub_01", "sub_02"):
        write_case(tmp_path / "data", name, ("flair", "adc", "dwi_b1000", "swi"))
    image = tmp_path / "data" / "preprocessed" / "sub_01" / "ses_1" / "adc.nii.gz"
    image.unlink()
    image.symlink_to("moved_away.nii.gz")
    report = run_container(
        ContainerConfig(
            image=script(tmp_path, "out.write_text('0.5')"), data=tmp_path / "data", task=INFARCT, out=tmp_path / "out"
        )
    )
    assert [run.fault for run in report.cases] == [Fault.NO_INPUT, None]
    assert "adc.nii.gz" in report.cases[0].message


def test_cases_of_one_name_in_two_data_sets_are_refused(tmp_path: Path) -> None:
    data, image = tmp_path / "data", script(tmp_path, "out.write_text('0.5')")
    data.mkdir()
    for dataset in ("a", "b"):
        write_case(tmp_path / dataset, "sub_01", ("flair", "adc", "dwi_b1000", "swi"))
        (tmp_path / dataset / "preprocessed").rename(data / dataset)
    config = ContainerConfig(image=image, data=data, task=INFARCT, out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"two cases would be written as 'sub_01_ses_1'.*one data set at a time"):
        run_container(config)
