"""Synthetic neck-to-knee bodies and their files; they describe no real person. See ``docs/phantom.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.phantom.anomalies import ANOMALIES, anomaly_names, find_anomaly
    from ukb_infer.phantom.cohort import write_cohort
    from ukb_infer.phantom.population import irreducible_sd, sample_subject
    from ukb_infer.phantom.sampling import render
    from ukb_infer.phantom.true_values import ANATOMY_DETERMINED, truths
    from ukb_infer.phantom.writers import write_scan

__getattr__ = on_first_use(
    __name__,
    {
        "anomalies": "ANOMALIES anomaly_names find_anomaly",
        "cohort": "write_cohort",
        "population": "irreducible_sd sample_subject",
        "sampling": "render",
        "true_values": "ANATOMY_DETERMINED truths",
        "writers": "write_scan",
    },
)
