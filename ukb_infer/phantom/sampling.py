"""From a body to stations: signal, noise, coil profile and fold-over on the grid of a protocol."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.compiling import compiled
from ukb_infer.phantom.anatomy import CHIN, N_LABELS, Body, Region, Tissue, middle_mm, paint_level
from ukb_infer.phantom.anomalies import EFFECTS
from ukb_infer.phantom.population import Subject
from ukb_infer.protocol import UK_BIOBANK, Protocol
from ukb_infer.reasons import Reason
from ukb_infer.records import Station

Size = Literal["full", "small"]

#: z of ImagePositionPatient of the first slice, mm (scanner frame).
FIRST_SLICE_Z_MM = 180.0

#: Signal of pure tissue in the water and in the fat image, arbitrary units of the 12-bit scanner scale.
_SIGNAL: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0.0, 0.0), Tissue.SUBCUTANEOUS_FAT: (58.0, 560.0), Tissue.MUSCLE: (300.0, 12.0),
    Tissue.ANTERIOR_THIGH_MUSCLE: (304.0, 12.0), Tissue.POSTERIOR_THIGH_MUSCLE: (292.0, 12.0),
    Tissue.VISCERAL_FAT: (70.0, 520.0), Tissue.LIVER: (430.0, 0.0), Tissue.KIDNEY: (520.0, 18.0),
    Tissue.LUNG: (26.0, 5.0), Tissue.HEART: (390.0, 14.0), Tissue.MARROW: (140.0, 330.0),
    Tissue.CORTICAL_BONE: (36.0, 20.0), Tissue.TABLE: (5.0, 3.0), Tissue.BOWEL: (250.0, 25.0),
    Tissue.SPLEEN: (400.0, 10.0), Tissue.BLADDER: (330.0, 4.0),
}  # fmt: skip
_MUSCLES = (Tissue.MUSCLE, Tissue.ANTERIOR_THIGH_MUSCLE, Tissue.POSTERIOR_THIGH_MUSCLE)
#: Standard deviation of the noise in each contrast, same units; and of a scan with little signal.
NOISE_SD, LOUD_NOISE_SD = 9.0, 54.0


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How the images of a site differ from UK Biobank's.

    Attributes:
        water_power: exponent on the water signals; above 1 heightens their contrast, as a larger flip angle does.
        fat: factor on the fat signals.
        leak: part of the fat signal that is taken for water.
        scale: factor on everything.
        noise: factor on the noise's standard deviation.
        shading: factor on the profile of the coil.
    """

    water_power: float = 1.0
    fat: float = 1.0
    leak: float = 0.0
    scale: float = 1.0
    noise: float = 1.0
    shading: float = 1.0


#: By the name of the protocol.
APPEARANCES = {
    "ukb": Appearance(),
    "second": Appearance(water_power=1.3, fat=0.72, leak=0.05, scale=1.6, noise=1.5, shading=1.8),
}
#: Water signal that ``water_power`` leaves as it is.
_UNCHANGED_WATER = 400.0
#: Where the values of a saturated station end.
CLIPPED_AT = 400
#: How far from the middle a participant lies, to the side or (cut at the front) towards the magnet's ceiling, mm.
ASIDE_MM, RAISED_MM = 60.0, 150.0


@dataclass(frozen=True)
class Acquisition:
    """The acquired scan: stations, head first, uint16 water and fat."""

    stations: tuple[Station, ...]


@dataclass(frozen=True)
class StationGrid:
    """Grid of one station in the body's frame (mm); rows run front to back, cols to the subject's left."""

    rows: int
    cols: int
    slices: int
    spacing_mm: float
    slice_spacing_mm: float
    x0_mm: float
    y0_mm: float
    z_mm: NDArray[np.float64]
    position_mm: NDArray[np.float32]


def tissue_signals(subject: Subject, look: Appearance = APPEARANCES["ukb"]) -> NDArray[np.float32]:
    """Water and fat signal of every label for one subject: (N_LABELS, 2) float32.

    Args:
        subject: its liver and muscles hold fat.
        look: of the site.
    """
    table = np.zeros((N_LABELS, 2), np.float32)
    for region in Region:
        for tissue, (water, fat) in _SIGNAL.items():
            share = {Tissue.LIVER: subject.liver_fat}.get(tissue, subject.muscle_fat if tissue in _MUSCLES else 0.0)
            seen = water * (water / _UNCHANGED_WATER) ** (look.water_power - 1.0) if water else 0.0
            lipid = look.fat * (fat + (560.0 - fat) * share)
            table[16 * region + tissue] = (look.scale * (seen * (1.0 - share) + look.leak * lipid), look.scale * lipid)
    return table


def station_grids(
    subject: Subject, size: Size, shift_mm: float = 0.0, protocol: Protocol = UK_BIOBANK
) -> list[StationGrid]:
    """Grids of the stations around one subject.

    Args:
        subject: determines the position of the table: the field starts near the chin.
        size: ``full`` is the protocol's matrix; ``small`` has half the rows, columns and slices on the same field.
        shift_mm: moves the field up (positive) or down relative to the body.
        protocol: of the site.
    """
    fine, tallest, overlaps = protocol.in_plane_spacing_mm, protocol.tallest_rows, protocol.overlaps_mm
    coarse = 2 if size == "small" else 1
    top_mm = CHIN * subject.height_mm + subject.offset_z_mm + shift_mm
    grids, offset = [], 0.0
    for number, plan in enumerate(protocol.stations):
        rows, cols, slices = plan.rows // coarse, plan.cols // coarse, plan.slices // coarse
        spacing = fine * coarse
        slice_spacing = plan.slice_spacing_mm * coarse
        lead = 0.5 * (coarse - 1) * fine
        z = -offset - 0.5 * (coarse - 1) * plan.slice_spacing_mm - np.arange(slices, dtype=np.float64) * slice_spacing
        first_x = -0.5 * (plan.cols - 1) * fine + lead
        first_y = 0.5 * (tallest - plan.rows) * fine + lead
        position = np.array([first_x, first_y - 0.5 * tallest * fine, FIRST_SLICE_Z_MM + z[0]])
        grids.append(
            StationGrid(
                rows, cols, slices, spacing, slice_spacing, first_x, first_y, top_mm + z, position.astype(np.float32)
            )
        )
        offset += plan.slices * plan.slice_spacing_mm - (overlaps[number] if number < len(overlaps) else 0.0)
    return grids


@compiled
def _render_slice(
    labels: Any,
    signals: Any,
    noise_sd: Any,
    gains: Any,
    profile_x: Any,
    profile_y: Any,
    state: Any,
    water: Any,
    fat: Any,
) -> Any:
    """Signal with coil profile and noise of one slice, uint16 in place; returns the generator's new state.

    The noise is the sum of four uniform numbers out of one 64-bit xorshift draw (nearly Gaussian), added to the
    signal; the absolute value is kept, so that air has a positive floor as in magnitude images.
    """
    rows, cols = labels.shape
    factor = noise_sd * np.sqrt(3.0) / 65536.0
    for r in range(rows):
        gain_row = gains * profile_y[r]
        for c in range(cols):
            label = labels[r, c]
            gain = gain_row * profile_x[c]
            for contrast in range(2):
                state ^= (state << np.uint64(13)) & np.uint64(0xFFFFFFFFFFFFFFFF)
                state ^= state >> np.uint64(7)
                state ^= (state << np.uint64(17)) & np.uint64(0xFFFFFFFFFFFFFFFF)
                total = (
                    (state & np.uint64(0xFFFF))
                    + ((state >> np.uint64(16)) & np.uint64(0xFFFF))
                    + ((state >> np.uint64(32)) & np.uint64(0xFFFF))
                    + (state >> np.uint64(48))
                )
                value = abs(signals[label, contrast] * gain + (np.float32(total) - 131070.0) * factor)
                if contrast == 0:
                    water[r, c] = np.uint16(value + 0.5)
                else:
                    fat[r, c] = np.uint16(value + 0.5)
    return state


def _station_gains(rng: np.random.Generator, slices: int, shading: float) -> NDArray[np.float64]:
    """Smooth coil profile along z times the station's scale: (slices,)."""
    u = np.linspace(-1.0, 1.0, slices)
    scale = float(np.clip(rng.normal(1.0, 0.06), 0.8, 1.2))
    return scale * (1.0 - shading * rng.uniform(0.10, 0.22) * u**4 + shading * rng.normal(0.0, 0.02) * u)


def _render_station(
    subject: Subject, grid: StationGrid, signals: NDArray[np.float32], seed: int, noise_sd: float, shading: float = 1.0
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Water and fat of one station as (slices, rows, cols) uint16."""
    rng = np.random.default_rng(seed)
    shapes = Body(subject, grid.z_mm).shapes()
    gains = _station_gains(rng, grid.slices, shading)
    ux, uy = np.linspace(-1.0, 1.0, grid.cols), np.linspace(-1.0, 1.0, grid.rows)
    tilt = shading * rng.normal(0.0, 0.03, 2)
    profile_x = (1.0 + tilt[0] * ux + 0.06 * shading * ux**2).astype(np.float32)
    profile_y = (1.0 + tilt[1] * uy + 0.06 * shading * uy**2).astype(np.float32)
    water = np.empty((grid.slices, grid.rows, grid.cols), np.uint16)
    fat = np.empty_like(water)
    labels = np.empty((grid.rows, grid.cols), np.uint8)
    table_row = int(np.ceil((344.0 - grid.y0_mm) / grid.spacing_mm))
    state = np.uint64(rng.integers(1, 2**63))
    for k in range(grid.slices):
        labels[:] = Tissue.AIR
        labels[table_row:] = Tissue.TABLE
        paint_level(shapes[k], grid.z_mm[k], grid.x0_mm, grid.y0_mm, grid.spacing_mm, subject.index % 1000, labels)
        state = np.uint64(
            _render_slice(labels, signals, noise_sd, gains[k], profile_x, profile_y, state, water[k], fat[k])
        )
    return water, fat


def _fold(volume: NDArray[np.uint16], strength: float, depth: int) -> None:
    """Add the signal that aliases from beyond one end onto the other, fading inwards, in place."""
    depth = min(depth, volume.shape[0] // 3)
    for k in range(depth):
        share = strength * (1.0 - k / depth)
        head, foot = volume[k].astype(np.float32), volume[-1 - k].astype(np.float32)
        volume[k] = (head + share * foot).astype(np.uint16)
        volume[-1 - k] = (foot + share * head).astype(np.uint16)


def _swap(water: NDArray[np.uint16], fat: NDArray[np.uint16], chosen: Any = True) -> None:
    kept = water.copy()
    np.copyto(water, fat, where=chosen)
    np.copyto(fat, kept, where=chosen)


def is_left(subject: Subject, grid: StationGrid) -> NDArray[np.bool_]:
    """Which voxels of a station lie left of the body's middle, a leg's own: (slices, 1, cols).

    Args:
        subject: may lie askew.
        grid: of the station.
    """
    x = grid.x0_mm + grid.spacing_mm * np.arange(grid.cols)
    return (x > middle_mm(subject, grid.z_mm)[:, None])[:, None]


def _add_metal(volumes: tuple[NDArray[np.uint16], ...], centre: tuple[int, int, int], radius: float) -> None:
    """Signal void with a bright rim, as around a hip implant."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in volumes[0].shape)]
    stretch = radius / 4.0
    distance = np.sqrt(
        ((z - centre[0]) / stretch) ** 2 + ((y - centre[1]) / radius) ** 2 + ((x - centre[2]) / radius) ** 2
    )
    for volume in volumes:
        volume[distance < 1.0] = 2
        rim = (distance >= 1.0) & (distance < 1.25)
        volume[rim] = np.minimum(volume[rim].astype(np.uint32) * 2, 4095).astype(np.uint16)


def _add_ghosts(volume: NDArray[np.uint16]) -> None:
    """Respiratory ghosts: shifted copies along the phase direction (rows)."""
    ghost = np.zeros(volume.shape, np.float32)
    for shift in (9, 18, 27):
        ghost += np.roll(volume, shift, axis=1) * (1.6 / shift) + np.roll(volume, -shift, axis=1) * (1.6 / shift)
    volume[:] = np.minimum(0.75 * volume + ghost, 4095).astype(np.uint16)


def _apply_effects(
    number: int, water: NDArray[np.uint16], fat: NDArray[np.uint16], effects: AbstractSet[Reason],
    subject: Subject, grid: StationGrid,
) -> None:  # fmt: skip
    """Appearance anomalies of one station (number from 1), in place."""
    pick = subject.index
    if Reason.FAT_WATER_SWAP in effects and number == 2 + pick % 3:
        _swap(water, fat)
    if Reason.FAT_WATER_SWAP_LEG in effects and number >= 5:
        _swap(water, fat, is_left(subject, grid) == bool(pick % 2))
    if Reason.METAL in effects and number == 4:
        slices, rows, cols = water.shape
        _add_metal((water, fat), (int(0.65 * slices), int(0.55 * rows), int(0.34 * cols)), 0.085 * cols)
    if Reason.MOTION in effects and number in (2, 3):
        _add_ghosts(water)
        _add_ghosts(fat)
    if Reason.SEAM_MISMATCH in effects and number >= 4:
        for volume in (water, fat):
            volume[:] = np.roll(volume, max(1, volume.shape[2] // 16), axis=2)  # the participant moved, 31 mm
    strong = Reason.FOLDING in effects
    _fold(water, 0.7 if strong else 0.04, 10 if strong else 2)
    _fold(fat, 0.7 if strong else 0.04, 10 if strong else 2)
    if Reason.SATURATED in effects and number in (3, 4):
        np.minimum(water, CLIPPED_AT, out=water)
        np.minimum(fat, CLIPPED_AT, out=fat)
    if Reason.EMPTY_SLICES in effects and number == 2 + pick % 4:
        first = len(water) // 2
        for volume in (water, fat):
            volume[first : first + max(2, len(water) // 8)] = 0


def render(
    subject: Subject, size: Size = "full", effects: AbstractSet[Reason] = frozenset(), protocol: Protocol = UK_BIOBANK
) -> Acquisition:
    """Scan one subject: stations with the protocol's geometry.

    Args:
        subject: to scan.
        size: ``full`` (protocol matrix) or ``small`` (half the rows, columns and slices over the same field).
        effects: appearance anomalies: swaps, missing knee or shoulder, fold-over, metal, motion, noise and others.
        protocol: of the site; its name selects the contrast.

    Returns:
        The stations, head first; the same arguments give the same voxels.

    Raises:
        ValueError: an effect that is not an appearance anomaly.
    """
    unknown = set(effects) - set(EFFECTS)
    if unknown:
        raise ValueError(f"not an appearance anomaly: {', '.join(sorted(unknown))}")
    shift = 230.0 if Reason.KNEE_MISSING in effects else -190.0 if Reason.SHOULDER_MISSING in effects else 0.0
    if Reason.OFF_CENTRE in effects:
        subject = replace(subject, offset_x_mm=subject.offset_x_mm + ASIDE_MM)
    raised = RAISED_MM if Reason.TRUNK_CUT in effects else 0.0
    look = APPEARANCES[protocol.name]
    noise_sd = look.noise * (LOUD_NOISE_SD if Reason.LOW_SIGNAL_TO_NOISE in effects else NOISE_SD)
    signals = tissue_signals(subject, look)
    seeds = np.random.SeedSequence([subject.seed, subject.index, 77]).generate_state(len(protocol.stations))
    stations = []
    for number, grid in enumerate(station_grids(subject, size, shift, protocol), start=1):
        grid = replace(grid, y0_mm=grid.y0_mm + raised)
        water, fat = _render_station(subject, grid, signals, int(seeds[number - 1]), noise_sd, look.shading)
        _apply_effects(number, water, fat, effects, subject, grid)
        in_plane = np.float32(grid.spacing_mm)
        spacing = np.array([in_plane, in_plane, grid.slice_spacing_mm], np.float64)
        stations.append(Station(number, water.transpose(1, 2, 0), fat.transpose(1, 2, 0), grid.position_mm, spacing))
    return Acquisition(tuple(stations))
