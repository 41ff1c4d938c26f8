"""Run a container, or any command, on every case as the challenge does, and say what is wrong with each output."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ukb_infer.errors import RunError, UsageError
from ukb_infer.imaging.datasets.cases import Case, read_cases
from ukb_infer.storage import atomic_path, csv_text, sha256_file, write_texts
from ukb_infer.tasks.outputs import SUFFIXES, Fault, OutputError, read_embedding, read_grid, read_mask, read_value
from ukb_infer.tasks.registry import get_task
from ukb_infer.tasks.task import Task

#: Engines in the order in which they are tried for an image; "command" runs on this machine.
ENGINES = ("apptainer", "singularity", "docker", "podman")
TABLE_NAME, LOGS = "faults.csv", "logs"
#: The script in the image, and the folder of a case's images below ``/input``.
_SCRIPT, _SESSION = "/app/predict.py", "ses_1"
#: How Docker and Podman end where they themselves fail, not what they run.
_ENGINE_FAILED = 125
#: Bytes of a faulty case's log that are kept.
_LOG_BYTES = 20_000


@dataclass(frozen=True, kw_only=True)
class ContainerConfig:
    """What to run.

    Attributes:
        image: an Apptainer image (``.sif``), the name of a Docker or Podman image, or a command, to which the flags of
            the task are appended.
        data: cases in the finetuning layout, see :func:`ukb_infer.imaging.datasets.cases.read_cases`.
        task: name in the registry, with flags or an embedding.
        out: folder of the outputs, ``<sub>.txt``, ``.nii.gz`` or ``.npy``.
        limit_s: longest time of a case.
        engine: ``auto``, ``command`` or one of :data:`ENGINES`.
        gpu: give the container the GPU.
    """

    image: str
    data: Path
    task: str
    out: Path
    limit_s: float = 120.0
    engine: str = "auto"
    gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class CaseRun:
    """One case: how long it took, how it ended and what is wrong, if anything.

    Attributes:
        name: of the output, without suffix.
        seconds: wall clock.
        exit_code: of the command; None if it was stopped or not started.
        fault: None if the output counts.
        message: what was found.
    """

    name: str
    seconds: float
    exit_code: int | None
    fault: Fault | None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class ContainerReport:
    """All cases, and the table written."""

    cases: tuple[CaseRun, ...]
    files: tuple[Path, ...]

    @property
    def faults(self) -> dict[Fault, int]:
        """Number of cases by fault."""
        return dict(Counter(case.fault for case in self.cases if case.fault is not None))

    @property
    def exit_code(self) -> int:
        """0 if every output counts, else 3."""
        return 3 if self.faults else 0


def run_container(config: ContainerConfig, progress: Callable[[int, int, int], None] | None = None) -> ContainerReport:
    """Run every case by itself, keep the outputs that count, and write ``faults.csv``.

    A case sees copies of its images, read-only, and an empty folder for its output; outputs of earlier runs are removed
    first.

    Args:
        config: what to run.
        progress: called with cases done, in total, and faulty.

    Raises:
        UsageError: unknown task, no cases, or neither a command nor an image.
        RunError: the folder cannot be written.
    """
    task = get_task(config.task)
    if not task.flags and task.output != "embedding":
        raise UsageError(f"{task.name} has no container contract; choose a task of FOMO25 or FOMO26", field="task")
    if config.limit_s <= 0:
        raise UsageError(field="limit_s", got=config.limit_s, expected="seconds above 0")
    engine = choose_engine(config)
    cases = named_cases(config.data, task.inputs)
    _remove_outputs(config.out, cases, SUFFIXES[task.output])
    report, runs = progress or (lambda *_: None), []
    report(0, len(cases), 0)
    for name, case in cases.items():
        with tempfile.TemporaryDirectory(prefix="ukb-infer-") as scratch:
            runs.append(_run_case(config, engine, task, name, case, Path(scratch)))
        report(len(runs), len(cases), sum(run.fault is not None for run in runs))
    return ContainerReport(cases=tuple(runs), files=write_texts(config.out, {TABLE_NAME: _table(runs)}))


def named_cases(data: Path, inputs: Sequence[Sequence[str]]) -> dict[str, Case]:
    """Cases by the name of their output: the participant, with the session where there are several.

    Args:
        data: folder, see :func:`ukb_infer.imaging.datasets.cases.read_cases`.
        inputs: modalities of every channel.

    Raises:
        UsageError: no cases, or two of one name, as from two data sets.
    """
    cases = read_cases(data, inputs)
    visits = Counter(case.participant for case in cases)
    named: dict[str, Case] = {}
    for case in cases:
        name = case.participant if visits[case.participant] == 1 else f"{case.participant}_{case.session}"
        if name in named:
            places = " and ".join(str(next(iter(each.images.values())).parent) for each in (named[name], case))
            raise UsageError(
                f"two cases would be written as {name!r}: {places}; give one data set at a time", field="data"
            )
        named[name] = case
    return named


def choose_images(task: Task, images: Mapping[str, Path]) -> dict[str, Path]:
    """The image of each channel of a task with its flag, the first modality that the case has.

    Args:
        task: with flags, or an embedding.
        images: path by modality.

    Raises:
        OutputError: a channel has no image.
    """
    flags, chosen = dict(task.flags), {}
    for channel in task.inputs:
        modality = next((m for m in channel if m in images), None)
        if modality is None:
            raise OutputError(Fault.NO_INPUT, f"no {' or '.join(channel)}")
        chosen[flags.get(modality, "--input")] = images[modality]
    return chosen


# -- engines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """How a case is started.

    Attributes:
        kind: ``command`` or one of :data:`ENGINES`.
        start: the words of the command, or the image.
        gpu: give the container the GPU.
    """

    kind: str
    start: tuple[str, ...]
    gpu: bool = False

    def call(self, flags: Mapping[str, str], output: str, inputs: Path, outputs: Path, name: str) -> list[str]:
        """Words of the call for one case.

        Args:
            flags: name of the file below ``ses_1`` by flag.
            output: name of the output.
            inputs: folder that the container sees as ``/input``.
            outputs: folder that it sees as ``/output``.
            name: of the container, unique.
        """
        inside, to = (inputs, outputs) if self.kind == "command" else (Path("/input"), Path("/output"))
        asked = [word for flag, file in flags.items() for word in (flag, str(inside / _SESSION / file))]
        asked += ["--output", str(to / output)]
        if self.kind == "command":
            return [*self.start, *asked]
        binds = (f"{inputs}:/input:ro", f"{outputs}:/output")
        if self.kind in ("docker", "podman"):
            mounts = [word for bind in binds for word in ("--volume", bind)]
            gpu = ["--gpus", "all"] if self.gpu else []
            alone = ["--rm", "--name", name, "--network", "none"]
            return [self.kind, "run", *alone, *mounts, *gpu, "--entrypoint", "python", *self.start, _SCRIPT, *asked]
        mounts = [word for bind in binds for word in ("--bind", bind)]
        nv = ["--nv"] if self.gpu else []
        return [self.kind, "exec", *nv, *mounts, *self.start, "python", _SCRIPT, *asked]

    def stop(self, name: str) -> None:
        """End a container that outlives its client.

        Args:
            name: as in :meth:`call`.
        """
        if self.kind in ("docker", "podman"):
            subprocess.run([self.kind, "rm", "--force", name], check=False, capture_output=True)


def choose_engine(config: ContainerConfig) -> Engine:
    """A ``.sif`` file is for Apptainer; words that start with a program are a command; else it is an image's name.

    Raises:
        UsageError: unknown or missing engine, or nothing that can be started.
    """
    if config.engine not in ("auto", "command", *ENGINES):
        raise UsageError(field="engine", got=config.engine, expected=f"auto, command, {', '.join(ENGINES)}")
    words = shlex.split(config.image)
    if not words:
        raise UsageError(field="image", got=config.image, expected="an image or a command")
    sif = words[0].endswith(".sif") or config.engine in ("apptainer", "singularity")
    command = config.engine == "command" or (config.engine == "auto" and not sif and shutil.which(words[0]) is not None)
    if command:
        if shutil.which(words[0]) is None:
            raise UsageError(f"{words[0]!r} is not a program that can be started", field="image")
        here = [str(Path(w).absolute()) if Path(w).is_file() else w for w in words]  # cases run in another folder
        return Engine("command", tuple(here))
    if sif and not Path(words[0]).exists():
        raise UsageError(f"{words[0]} does not exist; expected an Apptainer image", field="image")
    fitting = (config.engine,) if config.engine != "auto" else ENGINES[:2] if sif else ENGINES[2:]
    installed = [name for name in fitting if shutil.which(name)]
    if not installed:
        raise UsageError(
            f"{words[0]!r} is not a program, and {' and '.join(fitting)} are not installed to run it as an image",
            field="image",
        )
    engine = installed[0] if sif else next((name for name in installed if _has_image(name, words[0])), None)
    if engine is None:
        raise UsageError(
            f"{words[0]!r} is not a program, nor an image that {' or '.join(installed)} has; build or load it "
            "first (nothing is downloaded), and check that the engine answers",
            field="image",
        )
    return Engine(engine, (str(Path(words[0]).absolute()) if sif else words[0],), config.gpu)


def _has_image(engine: str, image: str) -> bool:
    """Whether an engine runs and has an image."""
    asked = subprocess.run([engine, "image", "inspect", image], check=False, capture_output=True)
    return asked.returncode == 0


# -- one case ----------------------------------------------------------------------------------------------------------


def _make_writable(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o777)  # a container may run as another user


def _run_case(config: ContainerConfig, engine: Engine, task: Task, name: str, case: Case, scratch: Path) -> CaseRun:
    output = name + SUFFIXES[task.output]
    inputs, outputs, work = (scratch / folder for folder in ("input", "output", "work"))
    try:
        images = choose_images(task, case.images)
    except OutputError as error:
        return CaseRun(name=name, seconds=0.0, exit_code=None, fault=error.fault, message=str(error))
    try:
        for path in images.values():
            path.open("rb").close()
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        return CaseRun(name=name, seconds=0.0, exit_code=None, fault=Fault.NO_INPUT, message=message)
    flags = _copy(images, inputs / _SESSION)
    _make_writable(outputs, work)
    before, log = _state(inputs), scratch / "log"
    call = engine.call(flags, output, inputs, outputs, f"ukb-infer-{secrets.token_hex(6)}")
    started_ns = _clock_of(scratch)
    started = time.monotonic()
    code, message = _execute(engine, call, log, work, config.limit_s)
    seconds = time.monotonic() - started
    try:
        if code == _ENGINE_FAILED and engine.kind in ("docker", "podman"):
            code, message = None, _last_words(log, "error")
        _check_run(code, message, _state(inputs) == before, log)
        _check_file(outputs, output, started_ns)
        _check_content(task, outputs / output, [inputs / _SESSION / file for file in flags.values()])
    except OutputError as error:
        _keep_log(config.out, name, log)
        return CaseRun(name=name, seconds=seconds, exit_code=code, fault=error.fault, message=str(error))
    with atomic_path(config.out / output) as partial:
        shutil.copyfile(outputs / output, partial)
    return CaseRun(name=name, seconds=seconds, exit_code=code, fault=None)


def _copy(images: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Copy the images, read-only; names by flag."""
    folder.mkdir(parents=True)
    for path in images.values():
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).chmod(0o444)
    for place in (folder, folder.parent):
        place.chmod(0o555)
    return {flag: path.name for flag, path in images.items()}


def _state(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _clock_of(folder: Path) -> int:
    """Now, ns, by the clock that stamps the files of this folder."""
    (folder / "started").touch()
    return (folder / "started").stat().st_mtime_ns


def _execute(engine: Engine, call: Sequence[str], log: Path, work: Path, limit_s: float) -> tuple[int | None, str]:
    """Exit code, or None and why; ends what is left of the command's process group."""
    with log.open("wb") as said:
        try:
            process = subprocess.Popen(
                call, cwd=work, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return None, f"{call[0]}: {error.strerror}"
        try:
            return process.wait(timeout=limit_s), ""
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.poll() is None:
                process.wait()
                engine.stop(call[call.index("--name") + 1] if "--name" in call else "")


def _check_run(code: int | None, message: str, kept: bool, log: Path) -> None:
    if code is None:
        raise OutputError(Fault.NOT_STARTED if message else Fault.TIMEOUT, message or "stopped at the limit")
    if not kept:
        raise OutputError(Fault.CHANGED_INPUT, "its input differs after the run")
    if code != 0:
        raise OutputError(Fault.EXIT_CODE, f"exit code {code}: {_last_words(log)}")


def _last_words(log: Path, word: str = "") -> str:
    """The last line said, or the last with a word."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    named = [line for line in lines if word in line.lower()] or lines
    return named[-1][:120] if named else "it said nothing"


def _check_file(outputs: Path, output: str, started_ns: int) -> None:
    path = outputs / output
    if path.is_symlink() or not path.is_file():
        others = [p.name for p in sorted(outputs.iterdir()) if p.name != output]
        if others:
            raise OutputError(Fault.WRONG_NAME, f"wrote {others[0]}, expected {output}")
        raise OutputError(Fault.NO_OUTPUT, f"no file {output}")
    if path.stat().st_mtime_ns < started_ns:
        raise OutputError(Fault.STALE_OUTPUT, f"{output} was written before the case was started")


def _check_content(task: Task, path: Path, images: Sequence[Path]) -> None:
    if task.output == "segmentation":
        read_mask(path, task, [read_grid(image) for image in images])
    elif task.output == "embedding":
        read_embedding(path)
    else:
        read_value(path, task)


# -- files -------------------------------------------------------------------------------------------------------------


def _remove_outputs(out: Path, names: Mapping[str, Case], suffix: str) -> None:
    """Remove what earlier runs left for these cases."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            (out / f"{name}{suffix}").unlink(missing_ok=True)
            (out / LOGS / f"{name}.log").unlink(missing_ok=True)
        (out / TABLE_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"`out` {out} cannot be written ({error.strerror}); choose another folder") from error


def _keep_log(out: Path, name: str, log: Path) -> None:
    said = log.read_bytes()[-_LOG_BYTES:]
    if said:
        write_texts(out / LOGS, {f"{name}.log": said.decode("utf-8", "replace")})


def _table(runs: Sequence[CaseRun]) -> str:
    rows = [
        (
            run.name,
            *(("ok", "") if run.fault is None else ("failed", run.fault.value)),
            f"{run.seconds:.2f}",
            "" if run.exit_code is None else run.exit_code,
            run.message,
        )
        for run in runs
    ]
    return csv_text(("participant", "status", "fault", "seconds", "exit_code", "message"), rows)
