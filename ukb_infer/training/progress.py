"""How a member's training is shown: a bar with loss, rate and time left on a terminal, lines elsewhere (floor 4)."""

from __future__ import annotations

import sys
from typing import Any


class MemberDisplay:
    """Progress of one member on stderr.

    Args:
        member: number of the member from 0; its bar has a line of its own.
        line_every: iterations between lines where stderr is no terminal.
        show: False shows nothing.
    """

    def __init__(self, member: int, line_every: int, *, show: bool = True) -> None:
        self.member, self.line_every, self.show = member, line_every, show
        self._bar: Any = None

    def __call__(self, iteration: int, total: int, loss: float, best: float) -> None:
        """Show one iteration."""
        if not self.show:
            return
        if not sys.stderr.isatty():
            if iteration % self.line_every == 0 or iteration == total:
                text = f"member {self.member + 1}: {iteration}/{total}  loss {loss:.3f}  best validation NLL {best:.3f}"
                print(text, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=iteration - 1,
                desc=f"member {self.member + 1}",
                position=self.member,
                unit="it",
                dynamic_ncols=True,
            )
        self._bar.update(iteration - self._bar.n)
        self._bar.set_postfix(loss=f"{loss:.3f}", best=f"{best:.3f}", refresh=False)

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()
