"""Real voices, both engines, and all that a microphone or an upload can get wrong. No network is touched."""

import re
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from vlm import speech
from vlm.audio import MAX_SECONDS, SAMPLE_RATE, open_audio
from vlm.errors import UserError
from vlm.speech import Segment, Transcriber
from vlm.weights import resolve
from vlm.whisper_weights import BINARY_VERSION, load_openai_whisper, read_variables, to_state_dict

DATA = Path(__file__).parent / "data"
EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"

# LibriVox, "Sense and Sensibility" (public domain); cut and transcribed by pocketsphinx-testdata (BSD).
SENTENCES = {
    DATA / "sense-and-sensibility-0880.wav": "he was not an ill disposed young man",
    DATA / "sense-and-sensibility-0930.wav": "he might even have been made amiable himself",
}
CLIP, SAID = next(iter(SENTENCES.items()))


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve("whisper-base")


@pytest.fixture(scope="module")
def faster(folder: Path) -> Transcriber:
    return Transcriber("faster-whisper", folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Transcriber:
    pytest.importorskip("whisper", reason="openai-whisper is not installed")
    return Transcriber("openai-whisper", folder)


@pytest.fixture(scope="module", params=["faster", "reference"])
def transcriber(request: pytest.FixtureRequest) -> Transcriber:
    return request.getfixturevalue(request.param)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def word_errors(said: str, heard: str) -> int:
    """The Levenshtein distance in words."""
    row = list(range(len(words(heard)) + 1))
    for i, expected in enumerate(words(said), 1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(words(heard), 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != got))
    return row[-1]


def test_real_sentences_are_heard_and_two_at_once_do_not_mix(transcriber: Transcriber) -> None:
    with ThreadPoolExecutor(2) as pool:
        transcripts = list(pool.map(transcriber.transcribe, SENTENCES))
    for said, transcript in zip(SENTENCES.values(), transcripts, strict=True):
        assert word_errors(said, transcript.text) == 0, transcript.text
        assert transcript.language == "en"
        assert transcript.audio_seconds == pytest.approx(3, abs=0.5)


def test_both_engines_write_the_same_sentence(faster: Transcriber, reference: Transcriber) -> None:
    assert reference.transcribe(CLIP) == faster.transcribe(CLIP)


def test_the_language_is_detected_where_none_is_set(folder: Path) -> None:
    assert Transcriber("faster-whisper", folder, language=None).transcribe(CLIP).language == "en"


@pytest.mark.parametrize("name", ["what-is-in-the-picture", "what-color-is-it"])
def test_the_spoken_example_questions_are_heard_as_their_names_say(faster: Transcriber, name: str) -> None:
    assert words(faster.transcribe(EXAMPLES / f"{name}.wav").text) == name.split("-")


@pytest.mark.parametrize(
    "wave",
    [
        pytest.param(lambda time: np.zeros_like(time), id="silence"),
        pytest.param(lambda time: np.random.default_rng(0).normal(0, 0.1, time.shape), id="white noise"),
        pytest.param(lambda time: 0.3 * np.sin(2 * np.pi * 50 * time), id="hum"),
        pytest.param(lambda time: (time % 0.3 < 0.002).astype(float), id="clicks"),
    ],
)
def test_nothing_is_heard_where_nobody_speaks(
    transcriber: Transcriber, wave: Callable[[np.ndarray], np.ndarray]
) -> None:
    transcript = transcriber.transcribe((SAMPLE_RATE, wave(np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE)))
    assert transcript == ("", "en", 5.0)


def test_a_tenth_of_a_second_of_speech_is_an_empty_transcript(transcriber: Transcriber) -> None:
    middle = open_audio(CLIP)[SAMPLE_RATE:][: SAMPLE_RATE // 10]
    assert transcriber.transcribe((SAMPLE_RATE, middle)) == ("", "en", 0.1)


def test_looping_and_improbable_text_is_not_plausible() -> None:
    assert Segment(" What is this?", 1.0, -0.3).is_plausible
    assert not Segment(" no no no no no", 2.5, -0.3).is_plausible
    assert not Segment(" I'm sorry.", 0.6, -1.6).is_plausible


def test_implausible_text_is_left_out_of_the_transcript(
    faster: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "MAX_COMPRESSION_RATIO", 0.0)
    assert faster.transcribe(CLIP).text == ""


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


def test_48_khz_stereo_integers_are_heard_as_the_16_khz_mono_file_is(faster: Transcriber) -> None:
    stereo = np.repeat(as_48_khz(open_audio(CLIP))[:, None] * 32_767, 2, axis=1).astype(np.int16)
    assert faster.transcribe((48_000, stereo)).text == faster.transcribe(CLIP).text


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


@pytest.mark.parametrize("path", ["nowhere.wav", "/dev/zero", "https://example.com/voice.wav", str(DATA)])
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


def test_loading_and_hearing_reach_for_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert Transcriber("faster-whisper", folder).transcribe(CLIP).text


def test_a_missing_file_is_named_instead_of_fetched_from_the_hub(folder: Path, tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "vocabulary.txt"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing.*pip install"):
        Transcriber("faster-whisper", tmp_path)


def test_unknown_engines_languages_and_devices_list_what_there_is(folder: Path) -> None:
    with pytest.raises(ValueError, match="faster-whisper, openai-whisper"):
        Transcriber("whisper.cpp", folder)
    with pytest.raises(ValueError, match=r"'xx'.*de, el, en"):
        Transcriber("faster-whisper", folder, language="xx")
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        Transcriber("faster-whisper", folder, device="mps")


def test_a_missing_engine_names_its_install_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "whisper.model", None)
    with pytest.raises(ImportError, match="pip install --no-deps openai-whisper"):
        Transcriber("openai-whisper", folder)


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    return string(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, kind, len(data)) + data


def model_file(*variables: bytes, version: int = BINARY_VERSION, spec: str = "WhisperSpec") -> bytes:
    head = struct.pack("<I", version) + string(spec) + struct.pack("<II", 3, len(variables))
    return head + b"".join(variables) + struct.pack("<I", 1) + string("b/alias") + string("a/weight")


WEIGHT = variable("a/weight", (2, 3), 4, np.arange(6, dtype=np.float16).tobytes())


def test_the_reader_returns_the_arrays_of_a_model_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_file(WEIGHT, variable("a/heads", (), 2, b"\x08\0")))
    arrays = read_variables(tmp_path / "model.bin")
    assert list(arrays) == ["a/weight", "a/heads"]
    np.testing.assert_array_equal(arrays["a/weight"], [[0, 1, 2], [3, 4, 5]])
    assert int(arrays["a/heads"]) == 8


def test_the_reader_rejects_a_file_cut_off_anywhere(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.bin", model_file(WEIGHT)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.bin"):
            read_variables(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(model_file(WEIGHT, version=5), id="another version"),
        pytest.param(model_file(WEIGHT, spec="TransformerSpec"), id="another model"),
        pytest.param(model_file(WEIGHT) + b"\0", id="bytes left over"),
        pytest.param(model_file(variable("a/weight", (2, 4), 4, bytes(12))), id="shape and size disagree"),
        pytest.param(model_file(variable("a/weight", (65_536,) * 4, 4, b"")), id="a product that wraps to 0"),
        pytest.param(model_file(variable("a/weight", (2, 3), 5, bytes(12))), id="bfloat16"),
        pytest.param(model_file(variable("a/weight", (1,) * 9, 4, bytes(2))), id="nine dimensions"),
        pytest.param(b"\x80\x04pickle" * 40, id="not a model"),
    ],
)
def test_the_reader_rejects_what_it_does_not_know(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.bin"):
        read_variables(tmp_path / "model.bin")


def test_keys_with_a_bias_are_refused_because_whisper_has_none(folder: Path) -> None:
    variables = read_variables(folder / "model.bin")
    bias = variables["encoder/layer_0/self_attention/linear_0/bias"].copy()
    bias[512] = 1  # the first of the keys' rows
    with pytest.raises(ValueError, match="keys have a bias"):
        to_state_dict(variables | {"encoder/layer_0/self_attention/linear_0/bias": bias})


def test_every_weight_of_openai_whisper_comes_from_the_file(folder: Path) -> None:
    pytest.importorskip("whisper", reason="openai-whisper is not installed")
    model = load_openai_whisper(folder, "cpu")
    variables = read_variables(folder / "model.bin")
    assert model.is_multilingual
    assert (
        sum(each.numel() for each in model.state_dict().values()) == 72_593_920
    )  # OpenAI's base, with positions
    stacked = variables["decoder/layer_3/attention/linear_1/weight"].astype(np.float32)  # keys over values
    values = model.decoder.blocks[3].cross_attn.value.weight.detach().numpy()
    np.testing.assert_array_equal(values, stacked[512:])
