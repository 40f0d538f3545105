import io
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlm.errors import UserError
from vlm.inputs import images
from vlm.inputs.images import MAX_PICTURE_BYTES, MAX_PIXELS, MAX_SIDE, open_image, pad_to_square

RED, WHITE = (255, 0, 0), (255, 255, 255)
ROTATED = 6  # EXIF orientation: the top of the scene is at the right of the stored picture
ORIENTATION = 0x0112


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, size, values.tobytes())


def png_that_claims(width: int, height: int) -> bytes:
    """A file of some hundred bytes whose header promises a huge picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_png_full_of_text_is_read() -> None:
    """60 MB of text, packed and not, before the pixels and behind them, where Pillow's own limits end reading."""
    plain = encoded(noise(), "PNG")

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes([65]) * (60 << 20), 1))
    end = len(plain) - 12
    for file in (plain[:33] + packed + plain[33:], plain[:end] + packed + plain[end:]):
        assert len(file) < MAX_PICTURE_BYTES
        assert open_image(file).tobytes() == open_image(plain).tobytes()
    with pytest.raises(UserError, match="damaged"):
        open_image(plain[:33] + packed + plain[33 : len(plain) // 2])


def near(pixel: object, colour: tuple[int, int, int], tolerance: int = 8) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(one - other) <= tolerance for one, other in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_named_to_the_person_is_read(kind: str) -> None:
    picture = open_image(encoded(Image.new("RGB", (40, 30), RED), kind))
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    assert near(picture.getpixel((20, 15)), RED)
    assert kind.lower() in images.READABLE.lower()


def test_a_path_bytes_and_a_pillow_image_give_the_same_picture(tmp_path: Path) -> None:
    picture = noise()
    path = tmp_path / "noise.png"
    picture.save(path)
    for source in (path, str(path), path.read_bytes(), picture, Image.open(path)):
        assert open_image(source).tobytes() == picture.tobytes()


def test_the_callers_picture_is_not_changed() -> None:
    given = Image.new("RGBA", (3000, 10), (255, 0, 0, 0))
    given.getexif()[ORIENTATION] = ROTATED
    assert open_image(given) is not given
    assert (given.mode, given.size, given.getexif()[ORIENTATION]) == ("RGBA", (3000, 10), ROTATED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_by_its_exif(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (80, 48), WHITE)
    ImageDraw.Draw(upright).rectangle((0, 0, 31, 15), fill=RED)  # the top left corner
    turns = [None, None, 0, 3, 1, 5, 2, 6, 4]  # what Pillow's transpose has to do to store it that way
    turn = turns[orientation]
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = open_image(encoded(stored, kind, exif=exif))
    assert picture.size == (80, 48)
    assert near(picture.getpixel((8, 4)), RED, 40)
    for place in ((72, 4), (8, 40), (72, 40)):
        assert near(picture.getpixel(place), WHITE, 40)


def test_a_picture_with_broken_exif_is_still_read() -> None:
    data = encoded(noise(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x01\x02")
    assert open_image(data).size == (64, 48)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert near(open_image(data).getpixel((16, 16)), RED)


def test_cmyk_is_read_in_its_own_colours() -> None:
    data = encoded(Image.new("RGB", (32, 32), RED).convert("CMYK"), "JPEG")
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert near(open_image(data).getpixel((16, 16)), RED)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_greys_are_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    picture = np.asarray(open_image(encoded(Image.fromarray(ramp), kind)))
    assert np.array_equal(picture[0, :, 0], np.arange(256))


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<f4"])
def test_deep_greys_are_made_small_before_they_are_scaled(kind: str) -> None:
    values = np.full((4000, 4000), 0x4080)
    data = encoded(Image.fromarray(values.astype(kind)), "TIFF", compression="tiff_deflate")
    tracemalloc.start()
    picture = open_image(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert picture.size == (MAX_SIDE, MAX_SIDE) and set(picture.getdata(0)) == {64}
    assert most < 6 * values.size  # bytes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 5), [0, 64, 128, 191, 255]),
        (np.array([0, 10, 255]), [0, 10, 255]),
        (np.array([0, 65535, 257]), [0, 255, 1]),
        (np.array([-1e6, 0, 3e6]), [0, 64, 255]),
        (np.array([7e9, 7e9]), [0, 0]),
        (np.array([np.nan, np.inf, 1.0]), [0, 0, 255]),
    ],
)
def test_float_greys_are_scaled_to_eight_bits(values: np.ndarray, expected: list[int]) -> None:
    picture = open_image(Image.fromarray(values.astype(np.float32)[None, :]))
    assert np.asarray(picture)[0, :, 0].tolist() == expected


def test_integer_greys_are_scaled_to_eight_bits() -> None:
    for values, expected in (
        ([0, 10, 255], [0, 10, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-5, 95], [0, 255]),
    ):
        picture = open_image(Image.fromarray(np.array([values], dtype=np.int32)))
        assert np.asarray(picture)[0, :, 1].tolist() == expected


@pytest.mark.parametrize("mode", "1 L LA P PA RGB RGBA CMYK YCbCr HSV I;16 I F".split())
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert open_image(Image.new(mode, (5, 4))).mode == "RGB"


def test_what_is_transparent_becomes_white_and_what_is_half_transparent_lighter() -> None:
    picture = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))  # clear, and black underneath
    picture.putpixel((2, 0), (0, 0, 0, 128))
    for kind in ("PNG", "TIFF", "WEBP"):
        flat = open_image(encoded(picture, kind, lossless=True) if kind == "WEBP" else encoded(picture, kind))
        assert [flat.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (127, 127, 127)]


def test_transparent_palettes_greys_and_key_colours_are_flattened_on_white() -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (90, 255))
    for data, expected in (
        (encoded(palette, "PNG", transparency=0), [WHITE, RED]),
        (encoded(palette, "GIF", transparency=0), [WHITE, RED]),
        (encoded(palette, "PNG", transparency=bytes([0, 255])), [WHITE, RED]),
        (encoded(palette.convert("RGB"), "PNG", transparency=(0, 0, 0)), [WHITE, RED]),
        (encoded(grey, "PNG"), [WHITE, (90, 90, 90)]),
    ):
        flat = open_image(data)
        assert [flat.getpixel((x, 0)) for x in range(2)] == expected


@pytest.mark.parametrize(
    ("size", "smaller"),
    [((1, 1), (1, 1)), ((20_000, 20), (1600, 2)), ((20, 20_000), (2, 1600)), ((3200, 1600), (1600, 800)),
     ((1600, 1600), (1600, 1600)), ((60_000, 1), (1600, 1))],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_any_shape_is_read_and_made_small_enough(
    kind: str, size: tuple[int, int], smaller: tuple[int, int]
) -> None:
    picture = open_image(encoded(Image.new("RGB", size, RED), kind))
    assert picture.size == smaller and max(picture.size) <= MAX_SIDE
    assert near(picture.getpixel((0, 0)), RED)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_a_file_that_is_cut_off_is_refused_with_advice(kind: str, part: float) -> None:
    data = encoded(noise((200, 200)), kind)
    with pytest.raises(UserError, match=r"^The picture .*(Save or download it again|Use PNG)"):
        open_image(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damaged_bytes_give_a_picture_or_a_plain_message(kind: str) -> None:
    data = encoded(noise((32, 32)), kind)
    chance = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for place in chance.integers(0, len(data), 4):
            damaged[place] = chance.integers(0, 256)
        try:
            assert open_image(bytes(damaged)).mode == "RGB"
        except UserError as problem:
            assert str(problem).startswith("The picture")


@pytest.mark.parametrize(
    "data",
    [b"hello, this is text", b"\x00" * 500, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4",
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"RIFF\x00\x00\x00\x00WAVEfmt "],
)  # fmt: skip
def test_what_is_not_a_picture_is_refused_and_the_formats_are_named(data: bytes) -> None:
    with pytest.raises(UserError, match="is not a picture that can be read here. Use PNG, JPEG"):
        open_image(data)


@pytest.mark.parametrize("kind", ["EPS", "PCX", "PPM", "ICO", "TGA"])
def test_formats_outside_the_list_are_refused_even_where_pillow_reads_them(kind: str) -> None:
    with pytest.raises(UserError, match="Use PNG"):
        open_image(encoded(noise(), kind))


def test_an_empty_file_and_a_picture_without_pixels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match=r'^The picture "empty.png" is empty'):
        open_image(tmp_path / "empty.png")
    with pytest.raises(UserError, match="is empty"):
        open_image(b"")
    with pytest.raises(UserError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))


def test_what_is_no_file_is_refused_and_the_folder_is_not_named(tmp_path: Path) -> None:
    impossible = (f"{tmp_path}/a\0b.png", f"{tmp_path}/{'x' * 5000}.png", "")
    for source in (tmp_path / "cat.png", tmp_path, "/dev/zero", *impossible):
        with pytest.raises(
            UserError, match=r"^The picture .* (was not found|cannot be opened|is a folder)\b"
        ) as problem:
            open_image(source)
        assert str(tmp_path.parent) not in str(problem.value) and len(str(problem.value)) < 200


def test_a_file_with_too_many_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(10 * MAX_PICTURE_BYTES)  # a hole: takes no room on the disk
    for source in (path, bytes(MAX_PICTURE_BYTES + 1)):
        with pytest.raises(UserError, match="larger than 20 MB. Make it smaller"):
            open_image(source)


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_000, 10_000), (8001, 8000), (2**31 - 1, 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(UserError, match="more than 64 million pixels. Make it smaller"):
            open_image(png_that_claims(*size))
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(UserError, match="more than 64 million pixels"):
            open_image(png_that_claims(*size))


def test_a_pillow_image_with_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    with pytest.raises(UserError, match="million pixels"):
        open_image(Image.new("L", (10, 10)))


def test_pillows_own_limits_are_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    open_image(encoded(noise(), "PNG"))
    assert before == Image.MAX_IMAGE_PIXELS and before is not None and before > MAX_PIXELS


def test_pictures_can_be_read_by_several_threads_at_once() -> None:
    data = [encoded(Image.new("RGB", (300, 200), (10 * number, 0, 0)), "PNG") for number in range(16)]
    results: dict[int, object] = {}

    def read(number: int) -> None:
        results[number] = open_image(data[number]).getpixel((5, 5))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: (10 * number, 0, 0) for number in range(16)}


def test_no_more_than_two_large_pictures_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, at_once, most = images._decode, Counter[str](), []

    def watched(data: bytes, title: str) -> Image.Image:
        at_once["now"] += 1
        most.append(at_once["now"])
        time.sleep(0.02)
        at_once["now"] -= 1
        return decode(data, title)

    monkeypatch.setattr(images, "_decode", watched)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_image, [encoded(noise(), "PNG")] * 16))
    assert max(most) == 2 and len(most) == 16


def test_padding_centres_the_picture_on_white() -> None:
    wide = pad_to_square(Image.new("RGB", (10, 4), RED))
    assert wide.size == (10, 10)
    column = [wide.getpixel((5, y)) for y in range(10)]
    assert column == [WHITE] * 3 + [RED] * 4 + [WHITE] * 3
    tall = pad_to_square(Image.new("RGB", (1, 3), RED), fill=(0, 0, 0))
    assert [tall.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), RED, (0, 0, 0)]
    square = noise((7, 7))
    assert pad_to_square(square).tobytes() == square.tobytes()
