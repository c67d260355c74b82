"""Windows of the memory maps of prepared scenes, out of which samples are made."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from base.grades import UNCLASSIFIED
from xbd.scenes import CHANNELS, MASK, POST, PRE

Array = npt.NDArray[np.uint8]
WORD = np.dtype("<u4")


class Parts(NamedTuple):
    """pre, post: uint8 [H, W, 3], or of 4 channels where that is said; mask: uint8 [H, W]."""

    pre: Array
    post: Array
    mask: Array


def read_parts(scene: Array, top: int, left: int, side: int, channels: int = 3) -> Parts:
    """A square window of the map; beyond the scene images are 0, the mask is ignored.

    channels: 3, or 4 for images with a channel of no meaning at their end, which OpenCV turns in half the time.
    """
    # Four of a pixel's seven bytes at once: pre and one of post, then post and the mask. Channel by channel it takes
    # five times as long.
    windows = np.zeros((side, side), WORD), np.full((side, side), UNCLASSIFIED << 24, WORD)
    for first, window in zip((PRE.start, POST.start), windows, strict=True):
        words = np.ndarray(scene.shape[:2], WORD, scene, first, scene.strides[:2])
        _copy(words, top, left, window)
    pre, post = (window.view(np.uint8).reshape(side, side, 4) for window in windows)
    mask = np.asarray(cv2.extractChannel(post, 3), np.uint8)
    if channels == 3:
        pre, post = (np.asarray(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), np.uint8) for image in (pre, post))
    return Parts(pre, post, mask)


def read_planes(
    scene: Array, corner: tuple[int, int], side: int, flips: npt.NDArray[np.int64], shift: npt.NDArray[np.int64]
) -> Array:
    """A square window of the map as planes, uint8 [7, side, side]; beyond the scene images are 0, the mask is ignored.

    corner: its first row and column in the scene. flips: -1 for an axis that is read backwards, else 1. shift: rows
    and columns by which post is read beside the rest.
    """
    planes = np.zeros((CHANNELS, side, side), np.uint8)
    planes[MASK] = UNCLASSIFIED
    # The window in the scene's own order of pixels and channels: one copy out of the map parts the channels and flips.
    window = planes.transpose(1, 2, 0)[:: flips[0], :: flips[1]]
    _copy(scene, corner[0], corner[1], window)
    if shift.any():
        window[..., POST] = 0
        _copy(scene[..., POST], corner[0] + shift[0], corner[1] + shift[1], window[..., POST])
    return planes


def _copy(scene: npt.NDArray[Any], top: int, left: int, window: npt.NDArray[Any]) -> None:
    """Copies what the window at (top, left) shows of the scene; what lies beyond it stays as it is."""
    first_row, end_row = np.clip((top, top + window.shape[0]), 0, scene.shape[0])
    first_column, end_column = np.clip((left, left + window.shape[1]), 0, scene.shape[1])
    part = scene[first_row:end_row, first_column:end_column]
    window[first_row - top : end_row - top, first_column - left : end_column - left] = part


def resize_planes(planes: Array, size: int, transposed: bool) -> Array:
    """Planes [7, side, side] to [7, size, size], rows and columns exchanged if `transposed`.

    Images bilinearly; the mask by the nearest pixel, with pixel centres where the images have them (INTER_NEAREST
    has not). Single planes, because OpenCV resizes seven interleaved channels in twice the time.
    """
    resized = np.empty((CHANNELS, size, size), np.uint8)
    for channel, (source, target) in enumerate(zip(planes, resized, strict=True)):
        cv2.resize(
            cv2.transpose(source) if transposed else source,
            (size, size),
            dst=target,
            interpolation=cv2.INTER_NEAREST_EXACT if channel == MASK else cv2.INTER_LINEAR,
        )
    return resized
