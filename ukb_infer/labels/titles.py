"""Titles of UK Biobank's fields, which the platform's table exporter uses as column names.

From the public Data Showcase. A title may be followed by ``| Instance 2 | Array 0``.
"""

from __future__ import annotations

import re

_SIDES = {"left": ("23249", "23266"), "right": ("23253", "23270")}
_PARTS = ("fat mass", "lean mass", "tissue fat percentage", "total mass")

#: Title to field, as :func:`plain_title` writes titles.
TITLES: dict[str, str] = {
    "sex": "31", "age when attended assessment centre": "21003", "hand grip strength right": "47",
    "waist circumference": "48", "hip circumference": "49", "pulse rate automated reading": "102", "height": "12144",
    "sitting height": "20015", "weight": "21002", "proton density fat fraction pdff": "22402",
    "anterior thigh fat free muscle volume right": "22403", "posterior thigh fat free muscle volume right": "22404",
    "anterior thigh fat free muscle volume left": "22405", "posterior thigh fat free muscle volume left": "22406",
    "visceral adipose tissue volume vat": "22407", "abdominal subcutaneous adipose tissue volume asat": "22408",
    "total thigh fat free muscle volume": "22409", "total trunk fat volume": "22410",
    "total adipose tissue volume": "22415", "total lean tissue volume": "22416",
    "total abdominal adipose tissue index": "22432", "weight to muscle ratio": "22433", "abdominal fat ratio": "22434",
    "muscle fat infiltration": "22435", "10p liver pdff proton density fat fraction": "22436",
    "android bone mass": "23244", "gynoid bone mass": "23261", "total fat mass": "23278",
    "total fat free mass": "23279", "total lean mass": "23280", "total tissue fat percentage": "23281",
    "total tissue mass": "23282", "vat visceral adipose tissue volume": "23289",
}  # fmt: skip
for _region, _first in (("android", 23245), ("arms", 23257), ("gynoid", 23262), ("legs", 23274), ("trunk", 23284)):
    TITLES |= {f"{_region} {part}": str(_first + k) for k, part in enumerate(_PARTS)}
for _side, (_arm, _leg) in _SIDES.items():
    TITLES |= {f"arm {part} {_side}": str(int(_arm) + k) for k, part in enumerate(_PARTS)}
    TITLES |= {f"leg {part} {_side}": str(int(_leg) + k) for k, part in enumerate(_PARTS)}


def plain_title(text: str) -> str:
    """A title in lower case with single blanks for everything but letters and digits.

    R's ``make.names`` and ``clean_names`` give the same result: ``Hand.grip.strength..right....Instance.2``.
    """
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
