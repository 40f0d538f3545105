"""A picture from anywhere -> an upright RGB picture for the encoder, or a UserError that says what to do.

In: a path, the bytes of a file, or a Pillow image. Out: RGB, upright by its EXIF, flattened on white, the
first frame of an animation, at most MAX_SIDE pixels on a side. Uploads are hostile until shown
otherwise, so the formats, the bytes and the pixels are bounded here, per call; Pillow's own limits are
process-wide and are left alone.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import BoundedSemaphore
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlm.errors import UserError

MAX_PICTURE_BYTES = 20 * 1024 * 1024  # a 50-megapixel phone JPEG is about 15 MB
MAX_PIXELS = 64_000_000  # 256 MB as RGBA or as deep greys while it is decoded; below Pillow's own bomb limit of 89 million
MAX_SIDE = 1600  # pixels; about three times what any encoder here looks at, and still sharp when it is shown
# Only formats that decode in this process: EPS, for one, would start Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
READABLE = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
SUFFIXES = frozenset(".png .jpg .jpeg .webp .gif .bmp .tif .tiff .avif".split())
PNG = b"\x89PNG\r\n\x1a\n"
WHITE = (255, 255, 255)
# A file of 300 kB can hold the largest picture, which takes 500 MB while it is decoded: no more than two threads do so
_DECODING = BoundedSemaphore(2)
_ANOTHER = "Save or download it again, or choose another picture."


class PictureFile(NamedTuple):
    path: Path
    name: str  # what people call it; a zip's pictures lie here under other names

    @property
    def title(self) -> str:
        """How messages name it."""
        return Path(self.name).name


def open_image(source: str | Path | bytes | Image.Image, name: str = "") -> Image.Image:
    """Read `source` as upright RGB on white, at most MAX_SIDE pixels on a side. Raises UserError, which calls the picture
    by `name` where its file lies here under another."""
    title = _title(name or source)
    try:
        with _DECODING:
            if isinstance(source, Image.Image):
                _check_pixels(source, title)
                image = source.copy()  # the caller's picture stays as it is
            else:
                image = _decode(_read(source, title), title)
            return _upright_rgb(image)
    except UserError:
        raise
    except UnidentifiedImageError as problem:
        raise UserError(f"{title} is not a picture that can be read here. Use {READABLE}.") from problem
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise UserError(_too_many_pixels(title)) from problem
    except Exception as problem:  # damaged files make Pillow raise SyntaxError, struct.error, zlib.error, ...
        raise UserError(f"{title} is damaged or cut off. {_ANOTHER}") from problem


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    """`quality` is Pillow's, 1 to 95."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def as_data_url(image: Image.Image, quality: int) -> str:
    """As a JPEG within an address."""
    return f"data:image/jpeg;base64,{base64.b64encode(as_jpeg(image, quality)).decode()}"


def pad_to_square(image: Image.Image, fill: tuple[int, int, int] = WHITE) -> Image.Image:
    """Centre an RGB picture on the smallest square that holds it, so that nothing is cropped or stretched."""
    width, height = image.size
    side = max(width, height)
    if width == height:
        return image
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def _title(source: object) -> str:
    """How an error names the picture: a file's own name, never its folder on the server."""
    if not isinstance(source, str | Path):
        return "The picture"
    name = Path(source).name
    return f'The picture "{name if len(name) <= 60 else name[:57] + "..."}"'


def _read(source: str | Path | bytes, title: str) -> bytes:
    data = source if isinstance(source, bytes) else _read_file(Path(source), title)
    if not data:
        raise UserError(f"{title} is empty. {_ANOTHER}")
    if len(data) > MAX_PICTURE_BYTES:
        raise UserError(
            f"{title} is larger than {MAX_PICTURE_BYTES // 2**20} MB. Make it smaller and try again."
        )
    return data


def _read_file(path: Path, title: str) -> bytes:
    try:
        if path.name and path.is_dir():
            raise UserError(f"{title} is a folder. Choose a picture in it.")
        if not path.is_file():  # also keeps out devices that never end
            raise UserError(f"{title} was not found. Check its name, or choose another picture.")
        with path.open("rb") as file:
            return file.read(
                MAX_PICTURE_BYTES + 1
            )  # one more than allowed is enough to know that it is too much
    except UserError:
        raise
    except PermissionError as problem:
        raise UserError(
            f"{title} may not be read by this account. Change its permissions, or choose another picture."
        ) from problem
    except (OSError, ValueError) as problem:  # a name too long, or with a null character
        raise UserError(f"{title} cannot be opened. Check its name, or choose another picture.") from problem


def _decode(data: bytes, title: str) -> Image.Image:
    try:
        return _first_frame(data, title)
    except UserError:
        raise
    except ValueError:  # what Pillow raises of a PNG with too much text in it, packed or not
        if not data.startswith(PNG):
            raise
    return _first_frame(_without_texts(data), title)


def _without_texts(png: bytes) -> bytes:
    """A PNG without its chunks of text and its colour profile, which may be large and are not looked at."""
    kept, place = [png[: len(PNG)]], len(PNG)
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(png[place:end])
        place = end
    return b"".join(kept)


def _first_frame(data: bytes, title: str) -> Image.Image:
    """The first frame of a file, all of its pixels read, so that a file that is cut off is found here."""
    image = Image.open(BytesIO(data), formats=FORMATS)
    _check_pixels(image, title)
    scale = MAX_SIDE / max(image.size)
    if scale < 1:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; the other formats ignore this.
        image.draft(None, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    image.load()
    return image


def _check_pixels(image: Image.Image, title: str) -> None:
    if image.width < 1 or image.height < 1:
        raise UserError(f"{title} has no pixels. Choose another picture.")
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_many_pixels(title))


def _too_many_pixels(title: str) -> str:
    return f"{title} has more than {MAX_PIXELS // 10**6} million pixels. Make it smaller and try again."


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Upright, 8 bits, small, flat: in this order a large picture is held at full size only once or twice."""
    with suppress(Exception):  # a picture whose EXIF is broken, in whatever way, is still a picture
        ImageOps.exif_transpose(image, in_place=True)
    image = _eight_bits(image)
    transparent = image.has_transparency_data
    mode = "RGBA" if transparent else "RGB"
    if image.mode != mode:  # or it would be copied
        image = image.convert(mode)
    image.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=2.0)
    if not transparent:
        return image
    flat = Image.new("RGB", image.size, WHITE)
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale greys deeper than 8 bits down; Pillow's `convert` would clip them, which turns the picture white.

    16-bit files use the whole range. 32-bit integers and floats have none of their own: values within 0..1
    (floats), 0..255 or 0..65535 are taken as parts of that, all others are stretched from lowest to highest.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    whole_range = image.mode.startswith("I;16")
    if whole_range:
        image = image.convert("I")  # Pillow averages the bytes of "I;16B" in the wrong order
    # First: the numbers below take 16 bytes a pixel
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    values = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    if not whole_range:
        low, high = float(values.min()), float(values.max())
        tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        fitting = [top for top in tops if low >= 0 and high <= top]
        if fitting:
            low, high = 0.0, fitting[0]
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
