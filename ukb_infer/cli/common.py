"""What the commands share: errors to exit codes, progress, the closing summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from ukb_infer.cli import show
from ukb_infer.console import stderr_is_terminal
from ukb_infer.errors import UkbInferError, UsageError
from ukb_infer.reasons import Reason

if TYPE_CHECKING:
    from ukb_infer.runs.summary import RunSummary

#: Exit codes beside 0 (all fine) and 3 (some or all scans failed).
EXIT_RUN, EXIT_USAGE = 1, 2
#: Start the same command again (EX_TEMPFAIL).
EXIT_AGAIN = 75
#: Without a terminal, a progress line at most this often, s.
LINE_EVERY_S = 30.0


class Command(TyperCommand):
    """A command whose errors call options by their flags: "--batch-size" where the library says "`batch_size`".

    The parameters of its function have the names of the library's arguments.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
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
    """Say which file the system refused and why; such an error is the machine's, not the user's input."""
    name = f"{error.filename}: " if error.filename else ""
    typer.echo(
        f"ukb-infer: {name}the system says: {error.strerror}; free space or restore access, then run the same command "
        "again: what is finished is kept",
        err=True,
    )
    return EXIT_RUN


def report_lost_output(error: OSError) -> int:
    """Say that what the command printed did not arrive; returns the exit code."""
    typer.echo(
        f"ukb-infer: stdout: the system says: {error.strerror}; what was printed is lost; free space, then run the "
        "same command again",
        err=True,
    )
    return EXIT_RUN


class ProgressDisplay:
    """Progress bar with rate and ETA on a terminal; a line now and then elsewhere.

    Args:
        what: what is counted.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar: Any = None
        self._first: int | None = None
        self._started = self._last_line = time.monotonic()

    def __call__(self, done: int, total: int, failures: int = 0) -> None:
        """Show how far it is."""
        if stderr_is_terminal():
            self._draw(done, total, failures)
        else:
            self._say(done, total, failures)

    def _draw(self, done: int, total: int, failures: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, initial=done, unit="scan", desc=self.what, dynamic_ncols=True)
        self._bar.update(done - self._bar.n)
        if failures:
            self._bar.set_postfix(failed=failures)

    def _say(self, done: int, total: int, failures: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if done != total and now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        rate = (done - self._first) / max(1e-9, now - self._started)
        left = f", about {(total - done) / rate / 60:.0f} min left" if rate > 0 and done < total else ""
        typer.echo(f"{self.what}: {done} of {total}, {failures} failed, {rate:.2f} scans/s{left}", err=True)

    def __enter__(self) -> ProgressDisplay:
        """Begin; nothing is shown yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()


def explain_reasons(reasons: dict[str, int], levels: dict[str, int]) -> None:
    """Each code with its number, meaning and what to do, and how grave the flags of quality are.

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


def print_summary(summary: RunSummary) -> None:
    """Counts, what failed and why, where the files are, and what the modules warn of."""
    for note in summary.notes:
        typer.echo(note)
    if not summary.dry_run:
        counts = ", ".join(f"{n} {status}" for status, n in summary.counts.items())
        typer.echo(f"{counts}; {summary.computed} worked on now, {summary.seconds:.1f} s")
        explain_reasons(summary.reasons, summary.levels)
        if summary.exit_code == EXIT_AGAIN:
            why = "stopped on request" if summary.stopped else "the machine or its storage failed"
            typer.echo(f"{summary.unfinished} scans unfinished ({why}): run the same command again", err=True)
        for path in summary.files:
            typer.echo(f"  {path}")
    for warning in summary.warnings:
        typer.echo(f"WARNING {warning}", err=True)
