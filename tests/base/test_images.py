"""Images: a damaged or foreign file is an error that names it, and PNG keeps every pixel."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from base.images import ImageError, decode_image, encode_png, read_image

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def png_with_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with the pixels of another picture."""
    content = bytearray(encode_png(PICTURE))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


PNG = encode_png(PICTURE)
BAD: dict[str, tuple[bytes, str]] = {
    "no content": (b"", "cannot be decoded (it is empty). Fetch the file again."),
    "no image": (b"these are not pixels", "if it is of another format, else fetch the file again."),
    "JPEG 2000": (
        encoded(Image.fromarray(PICTURE), "JPEG2000"),
        "is JPEG 2000, which is not supported, expected PNG, JPEG, TIFF, WEBP. Convert it by: rio convert "
        "a_pre_disaster.png a_pre_disaster.tif",
    ),
    "GIF": (encoded(Image.fromarray(PICTURE), "GIF"), "is GIF, which is not supported"),
    "BMP": (encoded(Image.fromarray(PICTURE), "BMP"), "is BMP, which is not supported"),
    "NITF": (b"NITF02.10" + bytes(400), "is NITF, which is not supported"),
    "signature alone": (PNG[:8], "cannot be decoded"),
    "PNG cut in its header": (PNG[:20], "cannot be decoded"),
    "PNG cut in half": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "PNG without its last rows": (PNG[: int(len(PNG) * 0.95)], "cannot be decoded"),
    "PNG with a flipped bit": (PNG[:2000] + bytes([PNG[2000] ^ 1]) + PNG[2001:], "cannot be decoded"),
    "gray": (encoded(Image.fromarray(PICTURE[..., 0])), "mode L, expected 8-bit RGB"),
    "gray with alpha": (encoded(Image.fromarray(PICTURE[..., 0]).convert("LA")), "mode LA, expected"),
    "palette": (encoded(Image.fromarray(PICTURE).convert("P")), "mode P, expected"),
    "one bit": (encoded(Image.fromarray(PICTURE[..., 0] > 99)), "mode 1, expected"),
    "16-bit RGB": (cv2.imencode(".png", PICTURE.astype(np.uint16) * 256)[1].tobytes(), "16 bits a channel"),
    "16-bit gray": (encoded(Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 256)), "expected 8-bit RGB"),
    "16-bit TIFF": (encoded(Image.fromarray(PICTURE[..., 0].astype(np.uint16)), "TIFF"), "expected 8-bit RGB"),
    "header of 10 gigapixels": (png_with_header(100_000, 100_000), "claims 100000x100000 pixels"),
    "header of one row too many": (png_with_header(16_384, 16_385), "claims 16384x16385 pixels"),
    "header of no pixel": (png_with_header(0, 40), "cannot be decoded"),
}


@pytest.mark.parametrize(("content", "finding"), BAD.values(), ids=BAD)
def test_a_bad_image_is_an_error_that_names_file_and_finding(tmp_path: Path, content: bytes, finding: str) -> None:
    path = tmp_path / "a_pre_disaster.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


def png_16_bit_rgb() -> bytes:
    """A 16-bit RGB PNG; Pillow cannot write one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + (PICTURE[y].astype(">u2") * 256 + 77).tobytes() for y in range(40))
    header = struct.pack(">IIBBBBB", 50, 40, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_16_bit_rgb_image_is_refused_and_not_silently_cut_to_8_bit() -> None:
    with pytest.raises(ImageError, match="expected 8-bit RGB"):
        decode_image(png_16_bit_rgb(), "a.png")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(ImageError, match=r"cannot be read|is a folder") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(shapes, st.integers(0, 2**20))
def test_png_keeps_every_pixel(shape: tuple[int, int], seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encode_png(picture), "a"), picture)


@given(shapes, st.integers(0, 2**20))
def test_a_mask_is_written_as_a_gray_png_with_its_values(shape: tuple[int, int], seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(mask))) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), mask)


def test_alpha_is_left_out() -> None:
    with_alpha = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 9, np.uint8)])
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(with_alpha)), "a"), PICTURE)


def test_a_tiff_is_read_as_well() -> None:
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(PICTURE), "TIFF"), "a"), PICTURE)
