"""Identity of a process, also across containers.

Host name and PID are not enough: containers often share a host name, and the first process of each has PID 1, so a
restarted container looks like the killed one. Boot id, PID namespace and start time identify a process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, as recorded in a lock file.

    Attributes:
        process: PID, 0 if unknown.
        host: name of its machine or container.
        boot: boot id of its kernel, random at every start; "" if unknown.
        namespace: PID namespace, e.g. ``pid:[4026531836]``; "" if unknown.
        started: start time in the kernel's ticks since boot; 0 if unknown.
    """

    process: int
    host: str
    boot: str = ""
    namespace: str = ""
    started: int = 0

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """The calling process."""
        number = os.getpid()
        return cls(number, socket.gethostname(), _boot(), _namespace(), _start_time(number))

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> ProcessIdentity:
        """Read a record; missing facts (other versions wrote fewer) stay unknown."""
        numbers = {k: v for k in ("process", "started") if type(v := plain.get(k)) is int and 0 < v < 1 << 63}
        texts = {k: v for k in ("host", "boot", "namespace") if isinstance(v := plain.get(k), str)}
        return cls(numbers.get("process", 0), texts.get("host", ""), texts.get("boot", ""),
                   texts.get("namespace", ""), numbers.get("started", 0))  # fmt: skip

    @property
    def shares_our_kernel(self) -> bool:
        """Whether it ran on this boot of this machine, in any container."""
        return self.boot != "" and self.boot == _boot()

    @property
    def lives(self) -> bool | None:
        """Whether it is alive; None if that cannot be determined from here."""
        if not self.shares_our_kernel or self.namespace == "" or self.namespace != _namespace() or not self.started:
            return None
        try:
            os.kill(self.process, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass  # exists, but belongs to another user
        started = _start_time(self.process)
        return started in (0, self.started)  # 0: hidden from us, so only the PID counts

    def __str__(self) -> str:
        """For people."""
        where = self.host or "another machine"
        elsewhere = self.shares_our_kernel and self.namespace not in ("", _namespace())
        return f"process {self.process or '?'} on {where}{' in another container' if elsewhere else ''}"


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def _start_time(process: int) -> int:
    """Field 22 of ``/proc/N/stat`` (proc(5)); the name before it may contain spaces and parentheses. 0 if unknown."""
    try:
        text = (_PROC / str(process) / "stat").read_bytes()
        return int(text[text.rindex(b")") + 1 :].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
