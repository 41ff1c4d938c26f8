"""Left is left: landmarks of random phantoms lie where nibabel, SimpleITK and dcm2niix all say that they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.landmarks import errors_of
from ukb_infer.imaging.volumes.grid import FusedGrid
from ukb_infer.imaging.volumes.stitch import Stitch


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_are_where_they_were_put(tmp_path: Path, seed: int) -> None:
    assert errors_of(seed, tmp_path) == []


def test_the_check_sees_a_mirrored_volume_and_a_shifted_affine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes, affine = Stitch.planes, FusedGrid.affine.fget
    with monkeypatch.context() as patch:
        patch.setattr(Stitch, "planes", lambda self, name: (p[:, ::-1] for p in planes(self, name)))
        found = errors_of(0, tmp_path / "mirrored")
        assert sum("nibabel places" in e and "left landmark" in e and "on the right" in e for e in found) == 1
        assert sum("SimpleITK" in e for e in found) == 2
        assert not any("dcm2niix" in e for e in found)
    shift = np.zeros((4, 4))
    shift[2, 3] = 12.0
    monkeypatch.setattr(FusedGrid, "affine", property(lambda self: affine(self) + shift))
    assert len([e for e in errors_of(0, tmp_path / "shifted") if "dcm2niix" not in e]) == 6
