"""Measures of signal, noise and artefacts of one station."""

from __future__ import annotations

import numpy as np

from ukb_infer.quality.sample import Sample, slices_first

#: Part of a slice's side in which blocks of fat are averaged for the bias field, and the fewest voxels of a block.
BIAS_BLOCKS, BIAS_FEWEST = 4, 12
#: Fat over water of a voxel that shows the field.
FATTY = 2.0


def signal_to_noise(sample: Sample) -> float | None:
    """SNR = median over the body of max(W, F), over sigma = RMS of the air / sqrt 2 (Rayleigh noise).

    The air is beside the body and in the front corners, where no ghost reaches; where arms fill these, in front of it.
    """
    front, *rest = sample.air
    squares, count = np.sum(rest, axis=0) if rest[0][1] + rest[1][1] else front
    if not count:
        return None
    sigma = np.sqrt(squares / (2.0 * count)) / np.sqrt(2.0)  # two contrasts a voxel
    signal = np.median(np.maximum(sample.water, sample.fat)[sample.body])
    return float(signal / sigma) if sigma > 0 else None


def ghost_ratio(sample: Sample) -> float | None:
    """RMS of the air along the phase direction from the body over that of the air elsewhere; 1 without ghosts.

    Along are the columns of the body, 18 to 80 mm in front of it; beside it where the header says that the phase runs
    along the rows.
    """
    front, side, corner = sample.air
    along, across = (side, front + corner) if sample.station.acquired.phase_along == "row" else (front, side + corner)
    if not (along[0] > 0 and across[0] > 0):
        return None
    return float(np.sqrt(along[0] / along[1] / (across[0] / across[1])))


def saturated_share(sample: Sample) -> float | None:
    """Share of body voxels that equal the largest value of their contrast, less the one that must; the larger one.

    Values clipped at the end of the scanner's range pile up there, wherever the range ends.
    """
    count = int(sample.body.sum())
    if not count:
        return None
    piled = max(int((volume == volume.max()).sum()) for volume in (sample.water, sample.fat))
    return (piled - 1) / count


def empty_share(sample: Sample) -> float:
    """Share of the slices, every one looked at, without signal; those above the head of the first station are fine."""
    from ukb_infer.quality import kernels

    empty = kernels.count_empty(
        *slices_first(sample.station), sample.threshold, sample.step[1], sample.station.number > 1
    )
    return float(empty / sample.station.shape[2])


def bias_field(sample: Sample) -> float | None:
    """Standard deviation of the logarithm of the signal of fat (voxels with F > 2 W), averaged in 4 x 4 x 4 blocks."""
    from ukb_infer.quality import kernels

    sums = np.zeros((BIAS_BLOCKS, BIAS_BLOCKS, BIAS_BLOCKS, 2))
    kernels.sum_fatty_blocks(sample.water, sample.fat, sample.body, FATTY, sums)
    signal, count = sums[sums[..., 1] >= BIAS_FEWEST].T
    return float(np.log(signal / count).std()) if len(count) > 1 else None
