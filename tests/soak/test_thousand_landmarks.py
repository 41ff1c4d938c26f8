"""Run by hand (`make soak`): no orientation or affine error over 1,000 random phantoms."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.support.landmarks import LANDMARKS, errors_of

PHANTOMS = 1000


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_no_landmark_of_a_thousand_phantoms_is_elsewhere() -> None:
    errors = []
    for seed in range(10_000, 10_000 + PHANTOMS):
        with tempfile.TemporaryDirectory() as folder:
            errors += errors_of(seed, Path(folder))
    print(f"\n{PHANTOMS} phantoms, {len(LANDMARKS) * PHANTOMS} landmarks, four readings of each: {len(errors)} errors")
    assert errors == []
