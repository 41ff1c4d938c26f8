"""Synthetic neck-to-knee bodies and their files. They describe no one; see ``docs/phantom.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.phantom.anomalies import ANOMALIES, Anomaly, anomaly_names, find_anomaly
    from ukb_infer.phantom.cohort import write_cohort
    from ukb_infer.phantom.population import Subject, irreducible_sd, sample_subject
    from ukb_infer.phantom.sampling import Acquisition, render
    from ukb_infer.phantom.true_values import ANATOMY_DETERMINED, truths
    from ukb_infer.phantom.writers import write_scan

_HOMES = {
    "ANATOMY_DETERMINED": "true_values",
    "ANOMALIES": "anomalies",
    "Acquisition": "sampling",
    "Anomaly": "anomalies",
    "Subject": "population",
    "anomaly_names": "anomalies",
    "find_anomaly": "anomalies",
    "irreducible_sd": "population",
    "render": "sampling",
    "sample_subject": "population",
    "truths": "true_values",
    "write_cohort": "cohort",
    "write_scan": "writers",
}
__all__ = [
    "ANATOMY_DETERMINED",
    "ANOMALIES",
    "Acquisition",
    "Anomaly",
    "Subject",
    "anomaly_names",
    "find_anomaly",
    "irreducible_sd",
    "render",
    "sample_subject",
    "truths",
    "write_cohort",
    "write_scan",
]
__getattr__ = on_first_use(__name__, _HOMES)
