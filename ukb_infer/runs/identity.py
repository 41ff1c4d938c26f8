"""Identity of a run: settings that affect its results, which must not change on resuming."""

from __future__ import annotations

from typing import Any

from ukb_infer.errors import UsageError
from ukb_infer.execution import Journal


def check_same_run(journal: Journal, identity: dict[str, Any]) -> None:
    """Check that a run is resumed with its original identity.

    Args:
        journal: of the run; a new one stores the identity, unless it is opened read-only.
        identity: of this call.

    Raises:
        UsageError: lists the differences.
    """
    before = journal.get("identity")
    if before is None:
        journal.put("identity", identity)
        return
    if differences := identity_differences(before, identity):
        raise UsageError(
            f"contains a run with other settings ({differences}); "
            "use the same settings, another folder, or `overwrite`",
            field="out",
        )


def identity_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Differences between two identities, in words; "" for none.

    Args:
        before: identity of the run.
        now: identity to compare.
    """
    commands = [_command_of(identity) for identity in (before, now)]
    if commands[0] != commands[1]:
        return f"{commands[0]} before, {commands[1]} now"
    keys = [k for k in sorted(set(before) | set(now)) if before.get(k) != now.get(k)]
    return "; ".join(f"`{k}`: {_brief(before.get(k))} before, {_brief(now.get(k))} now" for k in keys)


def _command_of(identity: dict[str, Any]) -> str:
    return "predict" if "modules" in identity else "stitch" if "contrasts" in identity else "project"


def _brief(value: Any) -> str:
    """A setting in a few words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {str(what)[:8]}" for name, what in value.items())
    return f"{len(value)} names" if isinstance(value, list) else str(value)
