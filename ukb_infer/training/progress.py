"""Progress of a member: a bar with loss, rate and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import math
from typing import Any

from ukb_infer.console import say_to_stderr, stderr_is_terminal


class MemberDisplay:
    """Progress of one member on stderr.

    Args:
        member: number of the member from 0; each bar has its own line.
        line_every: iterations between lines if stderr is not a terminal.
        judged_by: the measure of validation.
        show: False shows nothing.
    """

    def __init__(self, member: int, line_every: int, judged_by: str, *, show: bool) -> None:
        self.member, self.line_every, self.show = member, line_every, show
        self.best = f"best validation {judged_by.upper()}"
        self._bar: Any = None

    def __call__(self, iteration: int, total: int, loss: float, best: float) -> None:
        """Show one iteration."""
        if not self.show:
            return
        if not stderr_is_terminal():
            if iteration % self.line_every == 0 or iteration == total:
                judged = "" if math.isnan(best) else f"  {self.best} {best:.3f}"
                text = f"member {self.member + 1}: {iteration}/{total}  loss {loss:.3f}{judged}"
                say_to_stderr(text)
            return
        if self._bar is None:
            from tqdm import tqdm

            own: dict[str, Any] = {"desc": f"member {self.member + 1}", "position": self.member}
            self._bar = tqdm(total=total, initial=iteration - 1, unit="it", dynamic_ncols=True, **own)
        self._bar.update(iteration - self._bar.n)
        self._bar.set_postfix(
            loss=f"{loss:.3f}", **({} if math.isnan(best) else {"best": f"{best:.3f}"}), refresh=False
        )

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()
