"""Reading and writing images: a damaged file is an error, never a half-decoded picture."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from base.access import unreadable
from base.errors import InputError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")  # Pillow knows others for which it starts programs
# How files begin: those of FORMATS, and (at which byte) others that people have.
_OURS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF")
_OTHERS = (
    (b"\0\0\0\x0cjP  ", 0, "JPEG 2000"), (b"\xff\x4f\xff\x51", 0, "JPEG 2000"), (b"NITF", 0, "NITF"),
    (b"NSIF", 0, "NITF"), (b"EHFA_HEADER_TAG", 0, "ERDAS Imagine"), (b"\x89HDF", 0, "HDF5"), (b"CDF", 0, "NetCDF"),
    (b"GIF8", 0, "GIF"), (b"BM", 0, "BMP"), (b"ftyp", 4, "HEIF or AVIF"),
)  # fmt: skip
MAX_PIXELS = 16384**2  # a header that claims more is refused before any memory is taken
# Pillow's own limit only warns below twice its value; one limit, enforced here, is easier to state.
Image.MAX_IMAGE_PIXELS = None


class ImageError(InputError):
    """An image that cannot be used; the message names file, finding, expectation and remedy."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes an RGB image file to uint8 [H, W, 3]; see `decode_image`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {unreadable(path, error, '. Bring the image back.')}") from error
    return decode_image(content, str(path))


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decodes an encoded 8-bit RGB image to uint8 [H, W, 3].

    Pillow and not OpenCV, because OpenCV returns a truncated PNG with its missing rows black and no error.
    Raises ImageError, naming `name`, where the content is damaged, too large, or of another kind than 8-bit RGB.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"{name}: claims {image.width}x{image.height} pixels, the limit is {max_pixels}.")
            depth = _png_bit_depth(content)
            if image.mode not in ("RGB", "RGBA") or depth == 16:
                found = f"mode {image.mode}" if depth != 16 else "16 bits a channel"
                raise ImageError(f"{name}: has {found}, expected 8-bit RGB as in xBD. Convert the image to 8-bit RGB.")
            return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # which names the buffer
        raise ImageError(f"{name}: {_why_unknown(content, Path(name))}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: cannot be decoded ({error}). Fetch the file again.") from error


def _why_unknown(content: bytes, name: Path) -> str:
    """What an image is that Pillow does not know, and the remedy: a whole file of another format is not damaged."""
    if not content or content.startswith(_OURS):
        return f"cannot be decoded ({'its header is damaged' if content else 'it is empty'}). Fetch the file again."
    others = (found for start, offset, found in _OTHERS if content[offset:].startswith(start))
    format_, convert = next(others, None), f"rio convert {name.name} {name.stem}.tif"
    if format_ is not None:
        return f"is {format_}, which is not supported, expected {', '.join(FORMATS)}. Convert it by: {convert}"
    return (
        f"cannot be decoded, expected {', '.join(FORMATS)}. Convert it by `{convert}` if it is of another format, else "
        "fetch the file again."
    )


def _png_bit_depth(content: bytes) -> int | None:
    """Bit depth from a PNG's header, None for other formats: Pillow cuts 16-bit RGB to 8 bits without a word."""
    return content[24] if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 24 else None


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [H, W] or [H, W, 3] to the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
