"""What decides the results of a run, and whether a folder is continued with the same."""

from __future__ import annotations

from typing import Any

from ukb_infer.errors import UsageError
from ukb_infer.execution import Journal


def check_same_run(journal: Journal, identity: dict[str, Any]) -> None:
    """Make sure that a folder is continued with what it was begun with.

    Args:
        journal: of the run; a new one keeps the identity.
        identity: what decides the results of this call.

    Raises:
        UsageError: spells out the differences.
    """
    before = journal.get("identity")
    if before is None:
        journal.put("identity", identity)
        return
    differences = identity_differences(before, identity)
    if differences:
        raise UsageError(
            f"`out` contains a run with other settings ({differences}); "
            "use the same settings, another `out`, or `overwrite`"
        )


def identity_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two identities, in words; "" where nothing does.

    Args:
        before: identity of the run.
        now: identity that is compared with it.
    """
    keys = [k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k)]
    return "; ".join(f"{k}: {before.get(k)!r} before, {now.get(k)!r} now" for k in keys)
