"""Conversion of version 1 manifests, which have no sections, to version 2 and back.

They are still read, and a module keeps its version when calibrated, so that its hash stays that of the flat file.
"""

from __future__ import annotations

from typing import Any

from ukb_infer.modules.checks import Place

#: Keys of version 1, in the order of its files, to their places in version 2.
PLACES: dict[str, tuple[str, ...]] = {
    "schema_version": ("schema_version",), "name": ("name",), "version": ("version",),
    "intended_use": ("intended_use",), "provenance": ("provenance",), "warning": ("warning",), "licence": ("licence",),
    "recipe": ("input", "recipe"), "backbone": ("network", "encoder"), "input_scale": ("input", "scale"),
    "input_offset": ("input", "offset"), "input_size": ("input", "size"), "targets": ("outputs", "targets"),
    "members": ("network", "members"), "log_variance": ("network", "log_variance"), "training": ("training",),
}  # fmt: skip


def to_sections(value: dict[str, Any], channels: tuple[str, ...]) -> dict[str, Any]:
    """A manifest of version 1 in the shape of version 2.

    Args:
        value: the JSON object, with known keys only.
        channels: of the recipe, which version 1 did not record.
    """
    sections: dict[str, Any] = {
        "input": {"channels": channels}, "network": {"log_variance": "plain"}, "outputs": {}
    }  # fmt: skip
    for key, item in value.items():
        *section, name = PLACES[key]
        (sections[section[0]] if section else sections)[name] = item
    if isinstance(targets := value.get("targets"), list):
        sections["outputs"]["targets"] = [{"divisor": 1.0} | t if isinstance(t, dict) else t for t in targets]
    return sections


def from_sections(sections: dict[str, Any]) -> dict[str, Any]:
    """Inverse of :func:`to_sections`; a plain log-variance is omitted, so that the oldest modules keep their hash."""
    flat = {}
    for key, (first, *inside) in PLACES.items():
        if first in sections:
            flat[key] = sections[first][inside[0]] if inside else sections[first]
    return {key: item for key, item in flat.items() if (key, item) != ("log_variance", "plain")}


def place_of(place: Place) -> Place:
    """Map a place in the sections to the place in a version 1 file, for errors."""
    for key, moved in PLACES.items():
        if place[: len(moved)] == moved:
            return (key, *place[len(moved) :])
    return place
