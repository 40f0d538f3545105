"""Real voices in both engines, and what must not be heard as words. No network is touched."""

import re
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vlm.errors import UserError
from vlm.inputs import speech
from vlm.inputs.audio import SAMPLE_RATE, open_audio
from vlm.inputs.speech import Heard, Segment, Transcriber, plausible
from vlm.weights.resolve import resolve

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


@pytest.mark.slow
def test_real_sentences_are_heard_and_two_at_once_do_not_mix(transcriber: Transcriber) -> None:
    with ThreadPoolExecutor(2) as pool:
        transcripts = list(pool.map(transcriber.transcribe, SENTENCES))
    for said, transcript in zip(SENTENCES.values(), transcripts, strict=True):
        assert word_errors(said, transcript.text) == 0, transcript.text
        assert transcript.language == "en"
        assert transcript.audio_seconds == pytest.approx(3, abs=0.5)


@pytest.mark.slow
def test_a_short_recording_does_not_wait_for_the_whole_of_a_long_one(
    faster: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = open_audio(CLIP)
    long = np.tile(np.concatenate([samples, np.zeros(SAMPLE_RATE // 2, np.float32)]), 10)
    model, begun = faster._engine._model, threading.Event()
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *given: (begun.set(), encode(*given))[1])
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(faster.transcribe, (SAMPLE_RATE, long))
        assert begun.wait(60)  # it has the engine first
        assert word_errors(SAID, pool.submit(faster.transcribe, CLIP).result().text) <= 1
        assert not whole.done()
        assert whole.result().text.lower().count("young man") > 3  # Whisper drops some that are said again


@pytest.mark.slow
def test_the_spoken_example_question_is_heard_as_its_name_says(faster: Transcriber) -> None:
    name = "what-color-is-it"
    assert words(faster.transcribe(EXAMPLES / f"{name}.wav").text) == name.split("-")


@pytest.mark.slow
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
    assert transcript == Heard("", 5.0, language="en")


def test_a_tenth_of_a_second_of_speech_is_an_empty_transcript(transcriber: Transcriber) -> None:
    middle = open_audio(CLIP)[SAMPLE_RATE:][: SAMPLE_RATE // 10]
    assert transcriber.transcribe((SAMPLE_RATE, middle)) == Heard("", 0.1, language="en")


def test_loops_and_improbable_text_are_not_plausible_and_what_is_said_again_is() -> None:
    def kept(
        text: str, ratio: float, probability: float, seconds: float, times: int = 1, no_speech: float = 0.1
    ) -> int:
        return len(plausible([Segment(text, ratio, probability, no_speech, 0.0)] * times, seconds))

    assert kept(" What is this?", 1.0, -0.3, 0.5) == 1
    assert kept(" I'm sorry.", 0.6, -1.6, 1.0) == 0
    assert kept(" What is in the picture?", 2.7, -0.15, 7.4, times=4) == 4
    assert kept(" What is in the picture?", 2.7, -0.15, 2.0, times=4) == 0
    assert kept(" I'm going to use the same method as the other side.", 11.5, -0.2, 8.0, times=14) == 0
    assert kept(" I'm going to do it.", 2.7, -0.2, 8.0, times=4, no_speech=0.75) == 0
    later = [Segment(" A loop that says the same again.", 9.0, -0.2, 0.1, 30.0)] * 20
    assert plausible([Segment(" Hello.", 1.0, -0.3, 0.1, 0.0), *later], 40.0) == [
        Segment(" Hello.", 1.0, -0.3, 0.1, 0.0)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pause"), [("what-is-in-the-picture", 0.0), ("what-is-the-capital-of-France", 0.3)]
)
def test_a_question_that_is_spoken_four_times_over_is_heard(
    faster: Transcriber, name: str, pause: float
) -> None:
    one = open_audio(EXAMPLES / f"{name}.wav")
    four = np.concatenate([one, np.zeros(int(pause * SAMPLE_RATE), np.float32)] * 4)
    asked = name.lower().split("-")
    # processors round int8 in their own ways: one without AVX-512 wrote one of these down three times
    assert words(faster.transcribe((SAMPLE_RATE, four)).text) in (asked * 3, asked * 4)


@pytest.mark.slow
def test_what_whisper_makes_up_of_noise_is_dropped_even_where_the_detector_lets_it_through(
    faster: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "keep_speech", lambda samples: samples)
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * SAMPLE_RATE)
    assert faster.transcribe((SAMPLE_RATE, noise)).text == ""


@pytest.mark.slow
def test_implausible_text_is_left_out_of_the_transcript(
    faster: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "MAX_COMPRESSION_RATIO", 0.0)
    monkeypatch.setattr(speech, "MAX_RATE", 0.0)
    assert faster.transcribe(CLIP).text == ""


@pytest.mark.slow
def test_48_khz_stereo_integers_are_heard_as_the_16_khz_mono_file_is(faster: Transcriber) -> None:
    mono = open_audio(CLIP)
    stereo = np.repeat(
        np.interp(np.arange(3 * len(mono)) / 3, np.arange(len(mono)), mono)[:, None], 2, axis=1
    )
    assert (
        faster.transcribe((48_000, (stereo * 32_767).astype(np.int16))).text == faster.transcribe(CLIP).text
    )


@pytest.mark.slow
def test_loading_hearing_and_finding_out_the_language_reach_for_no_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []  # an error in a thread would go unnoticed

    def refuse(*_: object, **__: object) -> None:
        reached.append("the network")
        raise OSError("there is none")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    heard = Transcriber("faster-whisper", folder, language=None).transcribe(CLIP)
    assert heard.text and heard.language == "en"
    assert not reached


def test_a_missing_file_is_named_instead_of_fetched_from_the_hub(folder: Path, tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "vocabulary.txt"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(UserError, match=r"tokenizer\.json is missing.*pip install"):
        Transcriber("faster-whisper", tmp_path)


@pytest.mark.slow
def test_unknown_engines_and_languages_list_what_there_is(folder: Path) -> None:
    with pytest.raises(UserError, match="faster-whisper, openai-whisper"):
        Transcriber("whisper.cpp", folder)
    with pytest.raises(UserError, match=r"'xx'.*de, el, en"):
        Transcriber("faster-whisper", folder, language="xx")


def test_a_missing_engine_names_its_install_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper.model", None)
    with pytest.raises(UserError, match="pip install --no-deps openai-whisper"):
        Transcriber("openai-whisper", folder)
