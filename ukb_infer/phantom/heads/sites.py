"""Sites: scanners and habits that differ, so that one can be kept unseen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ukb_infer.errors import UsageError
from ukb_infer.phantom.heads.signals import Sequence
from ukb_infer.text import suggest

Finish = Literal["stripped", "defaced", "raw"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where heads are scanned.

    Attributes:
        name: in options and in ``participants.tsv``.
        field_tesla: of the magnet.
        axes: order in which voxels are stored, nibabel's codes.
        tilt_degrees: of the slices against the scanner's axes, about the left-right axis.
        spacing_mm: (right, front, up).
        extent_mm: field of view (right, front, up).
        raise_mm: of the field's centre above the middle of the brain.
        bias: strength of the coil's profile; 0.3 is a third between middle and corner.
        noise: factor on the noise of every sequence.
        finish: brain only, face removed, or everything.
        sequences: by modality.
    """

    name: str
    field_tesla: float
    axes: str
    tilt_degrees: float
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    raise_mm: float
    bias: float
    noise: float
    finish: Finish
    sequences: dict[str, Sequence] = field(repr=False)


def _sequences(
    t1: Sequence, t2: tuple[float, float], flair: tuple[float, float, float], dwi: tuple[float, float],
    gre: tuple[float, float, float], slices_mm: float, pd: tuple[float, float] = (2600.0, 18.0),
    *, suppressed: bool = False,
) -> dict[str, Sequence]:  # fmt: skip
    """All contrasts of a site: TR and TE of each, TI of FLAIR, flip angle of the gradient echo."""
    tr, te, flip = gre
    return {
        "t1": t1,
        "t2": Sequence(kind="spin", tr=t2[0], te=t2[1], thickness_mm=slices_mm, fat_suppressed=suppressed),
        "flair": Sequence(
            kind="inversion", tr=flair[0], te=flair[1], ti=flair[2], thickness_mm=slices_mm, fat_suppressed=suppressed
        ),
        "dwi": Sequence(kind="dwi", tr=dwi[0], te=dwi[1], thickness_mm=slices_mm, noise=0.025),
        "adc": Sequence(kind="adc", tr=dwi[0], te=dwi[1], thickness_mm=slices_mm, noise=0.025),
        "t2s": Sequence(kind="spoiled", tr=tr, te=te, flip=flip, thickness_mm=slices_mm),
        "swi": Sequence(kind="swi", tr=35.0, te=1.1 * te, flip=15.0, thickness_mm=0.6 * slices_mm, noise=0.03),
        "pd": Sequence(kind="spin", tr=pd[0], te=pd[1], thickness_mm=slices_mm),
    }


def _mprage(tr: float, ti: float, te: float = 3.0) -> Sequence:
    return Sequence(kind="inversion", tr=tr, ti=ti, te=te, thickness_mm=1.2, noise=0.02)


#: All sites by name. ``ukb`` is as UK Biobank: 3 T, sagittal, T1 and FLAIR, face removed. ``site_f`` and ``site_g``
#: are scanned only when asked for: settings of `adapt` and `pretrain` were chosen by heads of the others.
SITES: dict[str, Site] = {
    site.name: site
    for site in (
        Site(
            name="site_a", field_tesla=3.0, axes="RAS", tilt_degrees=0.0, spacing_mm=(1.7, 1.7, 1.7),
            extent_mm=(176.0, 214.0, 180.0), raise_mm=0.0, bias=0.25, noise=0.8, finish="stripped",
            sequences=_sequences(_mprage(2300.0, 1150.0), (5200.0, 95.0), (9000.0, 120.0, 2500.0), (6500.0, 85.0),
                                 (620.0, 20.0, 20.0), 3.0),
        ),
        Site(
            name="site_b", field_tesla=1.5, axes="LPS", tilt_degrees=12.0, spacing_mm=(1.6, 1.6, 3.2),
            extent_mm=(188.0, 226.0, 166.0), raise_mm=8.0, bias=0.12, noise=1.7, finish="defaced",
            sequences=_sequences(Sequence(kind="spin", tr=520.0, te=12.0, thickness_mm=5.0), (4100.0, 102.0),
                                 (8500.0, 112.0, 2250.0), (4200.0, 98.0), (760.0, 26.0, 22.0), 5.5),
        ),
        Site(
            name="site_c", field_tesla=3.0, axes="PIR", tilt_degrees=0.0, spacing_mm=(2.0, 1.8, 1.8),
            extent_mm=(190.0, 220.0, 206.0), raise_mm=-8.0, bias=0.42, noise=1.0, finish="stripped",
            sequences=_sequences(Sequence(kind="spoiled", tr=9.8, te=4.6, flip=8.0, thickness_mm=1.6), (3000.0, 80.0),
                                 (4800.0, 130.0, 1730.0), (3100.0, 72.0), (560.0, 16.0, 18.0), 4.0, suppressed=True),
        ),
        Site(
            name="site_d", field_tesla=1.5, axes="LAS", tilt_degrees=-18.0, spacing_mm=(1.9, 1.9, 2.8),
            extent_mm=(182.0, 222.0, 150.0), raise_mm=10.0, bias=0.20, noise=2.2, finish="stripped",
            sequences=_sequences(Sequence(kind="spoiled", tr=220.0, te=4.8, flip=75.0, thickness_mm=5.0),
                                 (6100.0, 118.0), (10000.0, 140.0, 2400.0), (5200.0, 110.0), (900.0, 32.0, 25.0), 6.0,
                                 suppressed=True),
        ),
        Site(
            name="site_e", field_tesla=3.0, axes="RAS", tilt_degrees=6.0, spacing_mm=(1.8, 1.8, 2.2),
            extent_mm=(186.0, 226.0, 190.0), raise_mm=-2.0, bias=0.55, noise=1.4, finish="defaced",
            sequences=_sequences(_mprage(1900.0, 1220.0, 2.6), (7200.0, 88.0), (11000.0, 96.0, 2680.0), (8200.0, 64.0),
                                 (480.0, 23.0, 16.0), 3.6),
        ),
        Site(
            name="ukb", field_tesla=3.0, axes="PIR", tilt_degrees=0.0, spacing_mm=(1.8, 1.8, 1.8),
            extent_mm=(190.0, 226.0, 210.0), raise_mm=-14.0, bias=0.15, noise=0.9, finish="defaced",
            sequences={
                "t1": _mprage(2000.0, 1050.0, 2.0),
                "flair": Sequence(kind="inversion", tr=5000.0, te=120.0, ti=1790.0, thickness_mm=1.2),
            },
        ),
        Site(
            name="site_f", field_tesla=1.5, axes="RPI", tilt_degrees=-9.0, spacing_mm=(1.8, 1.8, 2.4),
            extent_mm=(184.0, 224.0, 172.0), raise_mm=4.0, bias=0.32, noise=1.8, finish="stripped",
            sequences=_sequences(_mprage(2100.0, 1000.0, 4.0), (4700.0, 110.0), (7800.0, 135.0, 2150.0),
                                 (4800.0, 92.0), (680.0, 28.0, 18.0), 4.6),
        ),
        Site(
            name="site_g", field_tesla=3.0, axes="LIP", tilt_degrees=15.0, spacing_mm=(1.9, 1.7, 3.0),
            extent_mm=(190.0, 220.0, 160.0), raise_mm=-5.0, bias=0.48, noise=1.6, finish="defaced",
            sequences=_sequences(Sequence(kind="spin", tr=640.0, te=9.0, thickness_mm=4.5), (3500.0, 90.0),
                                 (9500.0, 105.0, 2600.0), (5800.0, 76.0), (520.0, 18.0, 24.0), 5.0, suppressed=True),
        ),
    )
}  # fmt: skip


def get_site(name: str) -> Site:
    """Site by name.

    Raises:
        UsageError: unknown; the message suggests the nearest and lists all.
    """
    if name not in SITES:
        raise UsageError(f"unknown {name!r}{suggest(name, SITES)} (choices: {', '.join(SITES)})", field="sites")
    return SITES[name]


def describe_sites() -> str:
    """One line per site, for people."""
    lines = []
    for site in SITES.values():
        spacing = " x ".join(f"{step:g}" for step in site.spacing_mm)
        lines.append(
            f"{site.name}: {site.field_tesla:g} T, stored {site.axes}, {spacing} mm, tilted {site.tilt_degrees:g} "
            f"degrees, {site.finish}, {' '.join(site.sequences)}"
        )
    return "\n".join(lines)
