"""Progress of a training: a bar with loss, rate and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import time
from typing import Any

from ukb_infer.console import say_to_stderr, stderr_is_terminal
from ukb_infer.text import format_duration


class StepDisplay:
    """Progress of one network on stderr.

    Args:
        name: of what is trained.
        line_every: iterations between lines if stderr is not a terminal.
        judged_by: the measure of validation.
        show: False shows nothing.
        place: line of the bar on a terminal, from 0.
    """

    def __init__(self, name: str, line_every: int, judged_by: str, *, show: bool, place: int = 0) -> None:
        self.name, self.line_every, self.show, self.place = name, line_every, show, place
        self.best = f"best validation {judged_by}"
        self._bar: Any = None
        self._first: tuple[int, float] | None = None

    def __call__(self, iteration: int, total: int, loss: float, best: float) -> None:
        """Show one iteration."""
        if not self.show:
            return
        if self._first is None:
            self._first = iteration, time.monotonic()
        if not stderr_is_terminal():
            if iteration % self.line_every == 0 or iteration == total:
                self._say(iteration, total, loss, best)
            return
        if self._bar is None:
            from tqdm import tqdm

            own: dict[str, Any] = {"desc": self.name, "position": self.place}
            self._bar = tqdm(total=total, initial=iteration - 1, unit="it", dynamic_ncols=True, **own)
        self._bar.update(iteration - self._bar.n)
        self._bar.set_postfix(
            loss=f"{loss:.3f}", **({} if not math.isfinite(best) else {"best": f"{best:.3f}"}), refresh=False
        )

    def _say(self, iteration: int, total: int, loss: float, best: float) -> None:
        judged = f"  {self.best} {best:.3f}" if math.isfinite(best) else ""
        first, since = self._first or (iteration, 0.0)
        rate = (iteration - first) / max(1e-9, time.monotonic() - since)
        left = f", about {format_duration((total - iteration) / rate)} left" if rate > 0 and iteration < total else ""
        speed = f"  {rate:.2f} it/s{left}" if rate > 0 else ""
        say_to_stderr(f"{self.name}: {iteration}/{total}  loss {loss:.3f}{judged}{speed}")

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()


class MemberDisplay(StepDisplay):
    """Progress of one member.

    Args:
        member: number of the member from 0; each bar has its own line.
        line_every: iterations between lines if stderr is not a terminal.
        judged_by: the measure of validation.
        show: False shows nothing.
    """

    def __init__(self, member: int, line_every: int, judged_by: str, *, show: bool) -> None:
        super().__init__(f"member {member + 1}", line_every, judged_by.upper(), show=show, place=member)
