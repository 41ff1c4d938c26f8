"""What the shell offers for an option's value. A key press waits for it: imports are light and inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completion of an option that takes one of these names."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(names, incomplete)

    return complete


def targets(incomplete: str) -> list[str]:
    """Completion of the last name in a list with commas."""
    from ukb_infer.targets import TARGETS

    return _last_of_list(TARGETS, incomplete)


def contrasts(incomplete: str) -> list[str]:
    """Completion of the last contrast in a list with commas."""
    from ukb_infer.imaging.volumes.names import CONTRASTS

    return _last_of_list(CONTRASTS, incomplete)


def _last_of_list(names: Iterable[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _beginning(names, last)]


def reasons(incomplete: str) -> list[str]:
    """Completion of a reason's code."""
    from ukb_infer.reasons import Reason

    return _beginning((reason.value for reason in Reason), incomplete)


def anomalies(incomplete: str) -> list[str]:
    """Completion of a phantom's defect."""
    from ukb_infer.phantom.anomalies import anomaly_names

    return _beginning(anomaly_names(), incomplete)


def modules(incomplete: str) -> list[str]:
    """Completion of the name of a module that can be found; the shell itself completes paths."""
    from ukb_infer.modules.find import list_modules

    return _beginning((folder.name for folder in list_modules()), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
