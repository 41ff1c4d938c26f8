"""The resize equals OpenCV's bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ukb_infer.imaging.recipes.mimir1.resize import resize_bilinear_uint8

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize("rows", [1, 2, 100, 255, 256, 257, 362, 370, 512, 733])
@pytest.mark.parametrize("cols", [1, 3, 128, 256, 299, 376, 398, 600])
def test_equals_opencv(rows: int, cols: int) -> None:
    rng = np.random.default_rng(rows * 1000 + cols)
    image = rng.integers(0, 256, (rows, cols), dtype=np.uint8)
    expected = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR).reshape(256, 256)
    np.testing.assert_array_equal(resize_bilinear_uint8(image, 256, 256), expected)


def test_random_sizes_both_ways() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        rows, cols, to_rows, to_cols = (int(n) for n in rng.integers(2, 420, 4))
        image = rng.integers(0, 256, (rows, cols), dtype=np.uint8)
        expected = cv2.resize(image, (to_cols, to_rows), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resize_bilinear_uint8(image, to_rows, to_cols), expected)


def test_same_size_is_unchanged() -> None:
    image = np.random.default_rng(1).integers(0, 256, (256, 256), dtype=np.uint8)
    np.testing.assert_array_equal(resize_bilinear_uint8(image, 256, 256), image)
