"""Shell completion of option values. The user waits for it, so imports are light and inside the functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer


def choice(*names: str, **settings: Any) -> Any:
    """An option that takes one of these names.

    Args:
        names: offered by the shell.
        settings: of the option, as typer takes them.
    """
    return typer.Option(**settings, autocompletion=lambda incomplete: _beginning(names, incomplete))


def targets(incomplete: str) -> list[str]:
    """Complete the last name of a comma-separated list."""
    from ukb_infer.targets import TARGETS

    return _last_of_list(TARGETS, incomplete)


def contrasts(incomplete: str) -> list[str]:
    """Completion of the last contrast in a list with commas."""
    from ukb_infer.imaging.volumes.names import CONTRASTS

    return _last_of_list(CONTRASTS, incomplete)


def _last_of_list(names: Iterable[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _beginning(names, last)]


def backbones(incomplete: str) -> list[str]:
    """Complete the name of a backbone."""
    from ukb_infer.networks import BACKBONES

    return _beginning(BACKBONES, incomplete)


def reasons(incomplete: str) -> list[str]:
    """Complete a reason code."""
    from ukb_infer.reasons import Reason

    return _beginning((reason.value for reason in Reason), incomplete)


def anomalies(incomplete: str) -> list[str]:
    """Complete the name of a phantom anomaly."""
    from ukb_infer.phantom.anomalies import anomaly_names

    return _beginning(anomaly_names(), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Complete the name of a task; the shell itself completes files."""
    from ukb_infer.tasks.registry import TASKS

    return _beginning(TASKS, incomplete)


def modules(incomplete: str) -> list[str]:
    """Complete the name of a module; the shell itself completes paths."""
    from ukb_infer.modules.find import list_modules

    return _beginning((folder.name for folder in list_modules()), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
