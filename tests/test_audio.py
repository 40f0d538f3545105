"""Every kind of recording becomes the same samples, and what is no recording is refused in plain words."""

from pathlib import Path

import av
import numpy as np
import pytest

from vlm.errors import UserError
from vlm.inputs.audio import MAX_SECONDS, SAMPLE_RATE, open_audio

DATA = Path(__file__).parent / "data"
CLIP = DATA / "sense-and-sensibility-0880.wav"  # three seconds of speech, 16 kHz mono


def as_48_khz(samples: np.ndarray) -> np.ndarray:
    """float32 [T] at 16 kHz -> float32 [3 T] at 48 kHz, by straight lines."""
    return np.interp(np.arange(3 * len(samples)) / 3, np.arange(len(samples)), samples).astype(np.float32)


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_any_kind_at_48_khz_become_the_same_sound(kind: str, channels: int) -> None:
    mono = open_audio(CLIP)
    samples = np.repeat(as_48_khz(mono)[:, None], channels, axis=1)
    if kind == "uint8":
        samples = np.rint((samples + 1) * 127.5)
    elif kind.startswith("int"):
        samples = samples * np.iinfo(kind).max
    heard = open_audio((48_000, samples.astype(kind).squeeze()))
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert len(heard) == pytest.approx(len(mono), abs=32)
    shared = min(len(heard), len(mono))
    assert np.corrcoef(heard[:shared], mono[:shared])[0, 1] > 0.99
    assert np.abs(heard).max() == pytest.approx(np.abs(mono).max(), rel=0.1)


def test_floats_out_of_range_or_not_a_number_stay_within_full_scale() -> None:
    loud = open_audio(CLIP) * 30_000
    loud[::1000] = np.nan
    heard = open_audio((SAMPLE_RATE, loud))
    assert np.isfinite(heard).all()
    assert 0.9 < np.abs(heard).max() <= 1


def encode(path: Path, codec: str, rate: int, samples: np.ndarray) -> Path:
    """int16 [T] -> a file in the container of the ending, as a browser or a phone writes it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        size = 960
        for start in range(0, len(samples), size):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], "s16", "mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("ending", "codec"),
    [("webm", "libopus"), ("ogg", "libopus"), ("flac", "flac"), ("mp3", "libmp3lame"), ("m4a", "aac")],
)
def test_what_browsers_and_phones_record_is_decoded_without_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, codec: str
) -> None:
    monkeypatch.setenv("PATH", "")
    mono = open_audio(CLIP)
    path = encode(tmp_path / f"voice.{ending}", codec, 48_000, (as_48_khz(mono) * 32_767).astype(np.int16))
    heard = open_audio(path)
    assert len(heard) == pytest.approx(len(mono), rel=0.05)
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(np.sqrt(np.mean(mono**2)), rel=0.1)


def test_a_recording_cut_off_half_way_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(CLIP.read_bytes()[:48_044])
    assert len(open_audio(path)) == 24_000


PLAYLIST = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\nfile://{CLIP}\n#EXT-X-ENDLIST\n".encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("voice.wav", b"", "is empty", id="empty"),
        pytest.param("voice.wav", b"RIFF\0\0\0\0WAVE", "cannot be read as sound", id="header cut off"),
        pytest.param("voice.wav", CLIP.read_bytes()[:44], "is empty", id="no samples"),
        pytest.param("voice.mp3", bytes(range(256)) * 40, "cannot be read as sound", id="garbage"),
        pytest.param(
            "notes.txt", b"These are words, not a sound.\n" * 99, "cannot be read as sound", id="text"
        ),
        pytest.param("list.m3u8", PLAYLIST, "cannot be read as sound", id="playlist"),
        pytest.param("list.wav", PLAYLIST, "cannot be read as sound", id="playlist in disguise"),
        pytest.param(
            "list.ffconcat", f"ffconcat version 1.0\nfile '{CLIP}'\n".encode(), "as sound", id="concat"
        ),
    ],
)
def test_a_file_that_holds_no_sound_is_refused_in_plain_words(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        open_audio(tmp_path / name)
    assert "hoose" in str(raised.value)  # what to do
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    "path", ["nowhere.wav", "x" * 5000, "nul\0", "/dev/zero", "https://example.com/voice.wav", str(DATA)]
)
def test_what_is_not_a_file_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="No recording is called"):
        open_audio(path)


def test_a_picture_is_not_a_recording(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    with pytest.raises(UserError, match="cannot be read as sound"):
        open_audio(tmp_path / "red.png")


@pytest.mark.parametrize(
    ("rate", "samples"),
    [
        (0, np.zeros(10, np.int16)),
        (-16_000, np.zeros(10, np.int16)),
        (16_000, np.zeros((1, 2, 3), np.int16)),
        (16_000, np.zeros(10, bool)),
        (16_000, np.array(["a"])),
        (16_000, np.zeros(0, np.int16)),
    ],
)
def test_samples_that_cannot_be_sound_are_refused(rate: int, samples: np.ndarray) -> None:
    with pytest.raises(UserError, match="Record it again or choose"):
        open_audio((rate, samples))


@pytest.mark.slow
def test_ten_minutes_are_read_and_more_is_refused(tmp_path: Path) -> None:
    ten_minutes = np.zeros(MAX_SECONDS * 8_000, np.int16)
    assert len(open_audio((8_000, ten_minutes))) == pytest.approx(MAX_SECONDS * SAMPLE_RATE, rel=1e-4)
    too_long = np.concatenate([ten_minutes, np.zeros(16_000, np.int16)])
    with pytest.raises(UserError, match="longer than 10 minutes"):
        open_audio((8_000, too_long))
    path = encode(tmp_path / "long.flac", "flac", 8_000, too_long)
    assert path.stat().st_size < 200_000  # small on disk: only decoding tells
    with pytest.raises(UserError, match="longer than 10 minutes"):
        open_audio(path)


def test_a_file_over_the_size_limit_is_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.truncate(250 * 1024**2)  # a hole: takes no room on disk
    with pytest.raises(UserError, match="larger than 240 MB"):
        open_audio(path)
