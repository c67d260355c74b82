"""Reading and writing images: a damaged file is an error, never a half-decoded picture."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from base.errors import InputError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")  # Pillow knows others for which it starts programs
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
        raise ImageError(f"{path}: cannot be read ({error.strerror}). Bring the image back.") from error
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
        raise ImageError(f"{name}: cannot be decoded, expected {', '.join(FORMATS)}. Fetch the file again.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: cannot be decoded ({error}). Fetch the file again.") from error


def _png_bit_depth(content: bytes) -> int | None:
    """Bit depth from a PNG's header, None for other formats: Pillow cuts 16-bit RGB to 8 bits without a word."""
    return content[24] if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 24 else None


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [H, W] or [H, W, 3] to the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
