"""What the commands share: errors to exit codes, progress, the closing summary."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand

from ukb_infer.cli import show
from ukb_infer.console import stderr_is_terminal
from ukb_infer.errors import UkbInferError, UsageError
from ukb_infer.reasons import Reason
from ukb_infer.text import format_duration

if TYPE_CHECKING:
    from ukb_infer.runs.summary import RunSummary

#: Exit codes beside 0 (all fine) and 3 (some or all scans failed).
EXIT_RUN, EXIT_USAGE = 1, 2
#: Start the same command again (EX_TEMPFAIL).
EXIT_AGAIN = 75
#: Without a terminal, a progress line at most this often, s.
LINE_EVERY_S = 30.0


class Command(TyperCommand):
    """A command whose errors name flags: "--batch-size" instead of the library's "`batch_size`".

    The parameters of its function are named like the library's arguments.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.help:  # \b keeps click from wrapping the examples, so that they can be copied
            self.help = re.sub(r"(?<=\n\n)(?=Example:|    ukb-infer)", "\b\n", self.help)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, naming flags in errors."""
        try:
            return super().invoke(ctx)
        except UkbInferError as error:
            called = {
                str(p.name): str(p.metavar).rstrip(".") if p.param_type_name == "argument" else max(p.opts, key=len)
                for p in self.params
            }
            error.call_options(called)
            raise


def report_error(error: UkbInferError) -> int:
    """Print one sentence on stderr and return the exit code."""
    typer.echo(f"ukb-infer: {error}", err=True)
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_RUN


def report_system_error(error: OSError) -> int:
    """Report an operating system error with its file; returns the exit code."""
    name = f"{error.filename}: " if error.filename else ""
    typer.echo(
        f"ukb-infer: {name}{error.strerror}; free space or restore access, then run the same command again; finished "
        "work is kept",
        err=True,
    )
    return EXIT_RUN


def report_lost_output(error: OSError) -> int:
    """Report that output on stdout was lost; returns the exit code."""
    typer.echo(
        f"ukb-infer: stdout: {error.strerror}; output was lost; free space, then run the same command again", err=True
    )
    return EXIT_RUN


class ProgressDisplay:
    """A line at once; then a progress bar with rate and ETA on a terminal, a line every 30 s elsewhere.

    Args:
        what: name of the task.
        unit: what is counted, in the singular.
    """

    def __init__(self, what: str, unit: str = "scan") -> None:
        self.what, self.unit = what, unit
        self._bar: Any = None
        self._first: int | None = None
        self._shown = -1
        self._started = self._last_line = time.monotonic()

    def __call__(self, done: int, total: int, failures: int = 0) -> None:
        """Show progress; called with finished, total and failed scans."""
        if stderr_is_terminal():
            self._draw(done, total, failures)
        else:
            self._say(done, total, failures)

    def _draw(self, done: int, total: int, failures: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, initial=done, unit=self.unit, desc=self.what, dynamic_ncols=True)
        if failures:
            self._bar.set_postfix_str(f"{failures} failed", refresh=False)  # drawn by the next update
        self._bar.update(done - self._bar.n)

    def _say(self, done: int, total: int, failures: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = self._shown = done
            self._started = self._last_line = now
            if done < total:
                typer.echo(f"{self.what}: {total - done} of {total} {self.unit}s to do", err=True)
            return
        if done == self._shown or (done != total and now - self._last_line < LINE_EVERY_S):
            return
        self._last_line, self._shown = now, done
        rate = (done - self._first) / max(1e-9, now - self._started)
        left = f", about {format_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        typer.echo(f"{self.what}: {done} of {total}, {failures} failed, {rate:.2f} {self.unit}s/s{left}", err=True)

    def __enter__(self) -> ProgressDisplay:
        """Begin; libraries take some seconds to load, which nobody should have to guess."""
        typer.echo(f"{self.what}: starting ...", err=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()


def explain_reasons(reasons: dict[str, int], levels: dict[str, int]) -> None:
    """Print each code with its count, meaning and advice, and how grave the quality flags are.

    Args:
        reasons: scans by code.
        levels: scans by the gravest level of their quality flags.
    """
    if any(levels.values()):
        words = {"unusable": "unusable", "targets": "with affected targets", "note": "with notes"}
        typer.echo("quality: " + ", ".join(f"{number} {words[level]}" for level, number in levels.items() if number))
    if not reasons:
        return
    known = [(number, Reason(code)) for code, number in reasons.items()]
    show.table(
        (">scans", "reason", "meaning", "what to do"),
        [(str(number), r.value, r.meaning, r.advice) for number, r in known],
        [f"  {number} x {r.value}: {r.meaning}; {r.advice}" for number, r in known],
    )


def finish(summary: RunSummary) -> NoReturn:
    """Print counts, reasons of failures, written files and the modules' warnings; exit with the run's code."""
    for note in summary.notes:
        typer.echo(note)
    if not summary.dry_run:
        counts = ", ".join(f"{n} {status}" for status, n in summary.counts.items())
        typer.echo(f"{counts}; {summary.computed} processed now, {summary.seconds:.1f} s")
        explain_reasons(summary.reasons, summary.levels)
        if summary.exit_code == EXIT_AGAIN:
            why = "stopped on request" if summary.stopped else summary.trouble or "the machine failed"
            typer.echo(f"{summary.again} scans unfinished ({why}): run the same command again", err=True)
        for path in summary.files:
            typer.echo(f"  {path}")
    for warning in summary.warnings:
        typer.echo(f"WARNING {warning}", err=True)
    raise typer.Exit(summary.exit_code)
