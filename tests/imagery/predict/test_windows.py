"""The plan of windows, how much each counts, and what can be asked for."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window

from imagery.predict.windows import plan, weights
from imagery.settings import STRIDE, SettingsError, Sources, Windows
from model import dual_hrnet


@given(st.integers(1, 900), st.integers(1, 900), st.integers(2, 8), st.integers(0, 4), st.data())
def test_windows_cover_every_pixel_and_overlap_as_asked(
    width: int, height: int, tiles: int, overlaps: int, data: st.DataObject
) -> None:
    tile, overlap = 32 * tiles, 32 * min(overlaps, tiles // 2)
    windows = plan(width, height, tile, overlap)
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    assert any(
        window.row_off <= row < window.row_off + window.height
        and window.col_off <= column < window.col_off + window.width
        for window in windows
    )
    for window in windows:
        assert window.row_off % 32 == window.col_off % 32 == 0
        for start, size, whole in (
            (window.row_off, window.height, height),
            (window.col_off, window.width, width),
        ):
            assert size == min(tile, whole - start)
            assert size > min(tile, whole) - 32
    for axis in ("row_off", "col_off"):
        starts = sorted({getattr(window, axis) for window in windows})
        shared = [start + tile - following for start, following in itertools.pairwise(starts)]
        assert all(overlap <= pixels < tile for pixels in shared)
        assert not shared or max(shared) - min(shared) <= 32


def test_no_window_is_planned_that_is_not_needed() -> None:
    assert plan(10, 10, 64, 0) == [Window(0, 0, 10, 10)]
    assert [window.col_off for window in plan(256, 64, 64, 0)] == [0, 64, 128, 192]
    assert [window.col_off for window in plan(1792, 1024, 1024, 256)] == [0, 768]
    assert [(window.col_off, window.width) for window in plan(1793, 1024, 1024, 256)] == [
        (0, 1024),
        (384, 1024),
        (800, 993),
    ]


def test_windows_start_where_the_coarsest_branch_has_a_pixel() -> None:
    assert STRIDE == dual_hrnet.STRIDE


def test_weights_fall_to_the_borders_as_a_cosine_and_are_never_nothing() -> None:
    found = weights(8, 16)
    assert found.dtype == np.float32 and found.min() > 0
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-6)
    assert (np.diff(found[3, :8]) > 0).all()
    half = weights(32, 32)
    # Two windows that share half of their pixels sum to the same everywhere.
    shared = half[:, 16:] + half[:, :16]
    np.testing.assert_allclose(shared, np.repeat(shared[:, :1], 16, axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"tile": 132}, {"overlap": 544}, {"overlap": 4}, {"batch": 0}, {"workers": -1},
     {"tile": 32768}, {"batch": 10**12}, {"workers": 10**12}],
)  # fmt: skip
def test_windows_that_cannot_be_are_one_line(settings: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(settings.values()))}.*, expected") as caught:
        Windows(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"value_range": (5.0, 5.0)}, "--range: found 5 5"),
        ({"value_range": (0.0, float("inf"))}, "--range: found 0 inf"),
        ({"percentiles": (98.0, 2.0)}, "--percentiles: found 98 2"),
        ({"percentiles": (0.0, 101.0)}, "--percentiles: found 0 101"),
        ({"resample_to": 0.0}, "--resample-to: found 0"),
        ({"resample_to": 1e-300}, "--resample-to: found 1e-300"),
        ({"resample_to": float("nan")}, "--resample-to: found nan"),
    ],
    ids=str,
)
def test_sources_that_cannot_be_are_one_line(settings: dict[str, Any], option: str) -> None:
    with pytest.raises(SettingsError, match=f"{option}, expected"):
        Sources((Path("pre.tif"),), (Path("post.tif"),), **settings)
