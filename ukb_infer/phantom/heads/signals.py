"""Signal of every tissue in every sequence, from relaxation times, proton density and diffusion.

Round values for 3 T of the order that reviews of relaxometry give; at 1.5 T T1 is shorter and T2* longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.phantom.heads.anatomy import N_TISSUES, Tissue
from ukb_infer.phantom.heads.population import Head

Kind = Literal["inversion", "spoiled", "spin", "dwi", "adc", "swi"]

#: T1 ms, T2 ms, T2* ms, proton density (water = 1), ADC 1e-3 mm2/s; at 3 T.
TISSUES: dict[Tissue, tuple[float, float, float, float, float]] = {
    Tissue.SKIN: (900.0, 40.0, 20.0, 0.55, 1.0), Tissue.FAT: (380.0, 75.0, 35.0, 0.75, 0.1),
    Tissue.MUSCLE: (1300.0, 38.0, 26.0, 0.80, 1.3), Tissue.BONE: (400.0, 2.0, 0.6, 0.12, 0.1),
    Tissue.MARROW: (420.0, 55.0, 10.0, 0.5, 0.3), Tissue.EYE: (4000.0, 900.0, 400.0, 0.98, 2.8),
    Tissue.DURA: (1000.0, 30.0, 12.0, 0.60, 0.9), Tissue.CSF: (4200.0, 1400.0, 600.0, 1.00, 3.0),
    Tissue.CORTEX: (1400.0, 95.0, 58.0, 0.83, 0.85), Tissue.WHITE: (850.0, 72.0, 50.0, 0.70, 0.75),
    Tissue.STRIATUM: (1250.0, 80.0, 45.0, 0.81, 0.78), Tissue.PALLIDUM: (1050.0, 62.0, 28.0, 0.76, 0.78),
    Tissue.THALAMUS: (1180.0, 80.0, 48.0, 0.79, 0.78), Tissue.HIPPOCAMPUS: (1450.0, 100.0, 60.0, 0.84, 0.90),
    Tissue.BRAINSTEM: (950.0, 76.0, 48.0, 0.72, 0.75), Tissue.CEREBELLUM: (1350.0, 92.0, 56.0, 0.82, 0.80),
    Tissue.BLOOD: (1700.0, 60.0, 25.0, 0.90, 1.5), Tissue.BRIGHT_WHITE: (1250.0, 125.0, 75.0, 0.82, 1.05),
    Tissue.INFARCT: (1450.0, 135.0, 72.0, 0.86, 0.42), Tissue.MENINGIOMA: (1350.0, 102.0, 52.0, 0.86, 0.78),
    Tissue.OEDEMA: (1450.0, 145.0, 85.0, 0.86, 1.35), Tissue.LACUNE: (3200.0, 700.0, 300.0, 0.97, 2.4),
    Tissue.BLEED: (1000.0, 45.0, 6.0, 0.75, 0.7), Tissue.NERVE: (950.0, 76.0, 48.0, 0.72, 0.75),
}  # fmt: skip
#: Water that flows or has long T1 keeps these.
_FLUIDS = (Tissue.CSF, Tissue.EYE, Tissue.LACUNE)
#: b of diffusion weighting, s/mm2.
B_VALUE = 1000.0
#: What fat suppression leaves.
_FAT_LEFT = 0.08


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """How one contrast is made; times in ms.

    Attributes:
        kind: ``inversion`` (T1, FLAIR), ``spoiled`` gradient echo, ``spin`` echo, ``dwi``, ``adc`` or ``swi``.
        tr: repetition time; ``te``: echo time.
        ti: inversion time.
        flip: angle of a gradient echo, degrees.
        fat_suppressed: whether fat is dark.
        thickness_mm: of the slices; blurs across them.
        noise: standard deviation relative to the brightest tissue of the brain.
    """

    kind: Kind
    tr: float
    te: float
    ti: float = 0.0
    flip: float = 90.0
    fat_suppressed: bool = False
    thickness_mm: float = 1.5
    noise: float = 0.02


def tissue_parameters(head: Head, field_tesla: float) -> NDArray[np.float64]:
    """T1, T2, T2* (ms), proton density and ADC (mm2/s) of every label for one head: (N_TISSUES, 5).

    Args:
        head: its iron darkens the deep nuclei, and its lesions differ in water.
        field_tesla: of the scanner.
    """
    table = np.zeros((N_TISSUES, 5))
    table[:, :3] = 1.0  # air: no protons
    for tissue, values in TISSUES.items():
        table[tissue] = values
    for tissue, share in ((Tissue.PALLIDUM, 1.0), (Tissue.STRIATUM, 0.6), (Tissue.THALAMUS, 0.3)):
        table[tissue, 1] /= 1.0 + 0.25 * share * (head.iron - 1.0)
        table[tissue, 2] /= 1.0 + share * (head.iron - 1.0)
    for tissue in (Tissue.INFARCT, Tissue.MENINGIOMA):
        table[tissue, [1, 4]] *= head.lesion_water
    table[:, 4] *= 1e-3
    solid = [int(t) for t in TISSUES if t not in _FLUIDS]
    table[solid, 0] *= (field_tesla / 3.0) ** 0.38
    table[:, 2] = 1.0 / (1.0 / table[:, 1] + (1.0 / table[:, 2] - 1.0 / table[:, 1]) * field_tesla / 3.0)
    return table


def signal_of(sequence: Sequence, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signal of every label, (N_TISSUES,), 1 = fully relaxed water; of ``adc`` in 1e-6 mm2/s.

    Args:
        sequence: timing.
        parameters: from :func:`tissue_parameters`.
    """
    t1, t2, t2s, density, diffusion = parameters.T
    if sequence.kind == "adc":
        return np.where(density > 0.2, diffusion * 1e6, 0.0)
    recovered = 1.0 - np.exp(-sequence.tr / t1)
    if sequence.kind == "inversion":
        signal = density * np.abs(1.0 - 2.0 * np.exp(-sequence.ti / t1) + np.exp(-sequence.tr / t1))
        signal = signal * np.exp(-sequence.te / t2)
    elif sequence.kind in ("spoiled", "swi"):
        angle = np.deg2rad(sequence.flip)
        steady = np.sin(angle) * recovered / (1.0 - np.cos(angle) * np.exp(-sequence.tr / t1))
        signal = density * steady * np.exp(-sequence.te / t2s)
        if sequence.kind == "swi":  # the phase mask darkens what has iron
            signal = signal * np.clip(t2s / 45.0, 0.1, 1.0)
    else:
        signal = density * recovered * np.exp(-sequence.te / t2)
        if sequence.kind == "dwi":
            signal = signal * np.exp(-B_VALUE * diffusion)
    if sequence.fat_suppressed or sequence.kind == "dwi":
        for tissue in (Tissue.FAT, Tissue.MARROW):
            signal[tissue] *= _FAT_LEFT
    return np.asarray(signal, np.float64)
