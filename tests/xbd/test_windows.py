"""Windows of a scene's memory map against plain slices."""

from pathlib import Path

import numpy as np
import pytest

from tests.xbd.test_crops import write_scenes
from xbd.scenes import MASK, POST, PRE, open_scene, read_index
from xbd.windows import read_parts


@pytest.mark.parametrize(("top", "left"), [(3, 5), (-7, 2), (40, -9), (30, 33), (-60, 0)])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_window_is_a_slice_and_beyond_the_scene_black_and_ignored(
    tmp_path: Path, top: int, left: int, channels: int
) -> None:
    scene = np.random.default_rng(1).integers(256, size=(48, 56, 7), dtype=np.uint8)
    write_scenes(tmp_path, {"scene": scene})
    side, margin = 24, 64
    wide = np.zeros((48 + 2 * margin, 56 + 2 * margin, 7), np.uint8)
    wide[..., MASK] = 255
    wide[margin:-margin, margin:-margin] = scene
    expected = wide[margin + top : margin + top + side, margin + left : margin + left + side]
    pre, post, mask = read_parts(open_scene(tmp_path, read_index(tmp_path)[0]), top, left, side, channels)
    assert pre.shape == post.shape == (side, side, channels)
    np.testing.assert_array_equal(pre[..., :3], expected[..., PRE])
    np.testing.assert_array_equal(post[..., :3], expected[..., POST])
    np.testing.assert_array_equal(mask, expected[..., MASK])
