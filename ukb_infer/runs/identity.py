"""Identity of a run: settings that affect its results, which must not change on resuming."""

from __future__ import annotations

from typing import Any

from ukb_infer.errors import UsageError
from ukb_infer.execution import Journal


def check_same_run(journal: Journal, identity: dict[str, Any]) -> None:
    """Check that a run is resumed with its original identity.

    Args:
        journal: of the run; a new one stores the identity.
        identity: of this call.

    Raises:
        UsageError: lists the differences.
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
    """Differences between two identities, in words; "" for none.

    Args:
        before: identity of the run.
        now: identity to compare.
    """
    keys = [k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k)]
    return "; ".join(f"{k}: {before.get(k)!r} before, {now.get(k)!r} now" for k in keys)
