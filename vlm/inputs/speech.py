"""A recording -> what was said in it, by Whisper (Radford et al. 2022, arXiv 2212.04356).

One `Transcriber`, two engines over the same CTranslate2 files, both on the CPU: faster-whisper (int8) and
openai-whisper (its own PyTorch module, float32). Both hear only what the Silero detector takes for speech,
so both agree that silence and noise hold no words: Whisper alone invents some. Decoding is greedy; looping
and improbable text is dropped.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlm.errors import UserError
from vlm.inputs.audio import SAMPLE_RATE, open_audio
from vlm.inputs.whisper_weights import load_openai_whisper
from vlm.machine import usable_cores
from vlm.weights.resolve import REMEDY

MIN_SECONDS = 0.3  # shorter than any word: Whisper would make one up
MAX_COMPRESSION_RATIO = 2.4  # Whisper's own threshold: text that zips better than this is repeated
# Characters a second of such text. Who says a thing four times over takes the time that it takes, about 15; a loop that
# Whisper falls into fills its 224 tokens, however short the sound is: 8 seconds of noise give 90.
MAX_RATE = 20
WINDOW_SECONDS, FRAMES_A_SECOND = 30, 100  # Whisper's own
# Given an animal's cry, Whisper writes "I'm sorry." Of Tux Paint's 101 sound effects the detector lets 8
# through; the two limits below drop 6 of them, and none of its 66 spoken words (whisper-base, int8).
MIN_LOG_PROBABILITY = -1.5  # mean over a segment's tokens
# Whisper's default is 0.6; it counts where the mean log probability is below -1, and for text that is repeated: of noise
# that gets past the detector it is 0.75, of questions spoken four times over at most 0.17
MAX_NO_SPEECH = 0.5
FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.*")
INSTALL_FASTER_WHISPER = "pip install faster-whisper==1.2.1"

# What both engines are told, under the names that they share.
_OPTIONS: dict[str, Any] = {
    "task": "transcribe",
    "temperature": 0.0,
    "condition_on_previous_text": False,  # one window's mistake must not lead the next astray
    "no_speech_threshold": MAX_NO_SPEECH,
}


@dataclass(frozen=True)
class Heard:
    """A recording that was listened to: its words, how long it is, and how long that took. `text` is "" where there are no
    words, and then so is `language` if it was to be detected."""

    text: str
    audio_seconds: float
    seconds: float = 0.0
    language: str = ""


class Segment(NamedTuple):
    """A phrase, with the scores of the window of 30 seconds that it was heard in."""

    text: str
    compression_ratio: float
    log_probability: float
    no_speech_probability: float
    window: float  # where that begins, in seconds


def plausible(segments: Sequence[Segment], seconds: float) -> list[Segment]:
    """Those that were spoken in `seconds` of sound: neither loops nor improbable."""
    kept: list[Segment] = []
    for start, phrases in groupby(segments, key=lambda each: each.window):
        window = list(phrases)
        rate = sum(len(each.text) for each in window) / max(MIN_SECONDS, min(WINDOW_SECONDS, seconds - start))
        kept += [
            each
            for each in window
            if each.log_probability >= MIN_LOG_PROBABILITY
            and (
                each.compression_ratio <= MAX_COMPRESSION_RATIO
                or (rate <= MAX_RATE and each.no_speech_probability <= MAX_NO_SPEECH)
            )
        ]
    return kept


def _segment(told: Mapping[str, Any]) -> Segment:
    """From Whisper's own names, which both engines have."""
    return Segment(
        told["text"],
        told["compression_ratio"],
        told["avg_logprob"],
        told["no_speech_prob"],
        told["seek"] / FRAMES_A_SECOND,
    )


def import_packages(engine: str) -> None:
    """Import what a transcriber needs, so that one made in another thread need not: where two threads import
    packages that need each other, as faster-whisper and Transformers need tokenizers, one of them may fail."""
    with suppress(ImportError, UserError):  # which the transcriber tells
        _faster_whisper()
        if engine == "openai-whisper":
            import whisper  # noqa: F401


def _faster_whisper() -> Any:
    """The package, whose detector of speech both engines use."""
    try:
        import faster_whisper.vad
    except ImportError as error:
        raise UserError(f"Speech needs faster-whisper: {INSTALL_FASTER_WHISPER}") from error
    return faster_whisper


class FasterWhisper:
    """CTranslate2's engine, with int8 on the CPU. Threads may read at once: they take turns at each half minute of a
    recording, so that a short one does not wait for the whole of a long one."""

    def __init__(self, folder: Path) -> None:
        self._model = _faster_whisper().WhisperModel(
            str(folder),
            device="cpu",
            compute_type="int8",
            # more threads than cores would slow llama.cpp down (vlm/engines/llama_cpp.py)
            cpu_threads=usable_cores(),
            local_files_only=True,
        )
        self.languages = frozenset(self._model.supported_languages)

    def read(self, samples: np.ndarray, language: str | None) -> tuple[list[Segment], str]:
        segments, info = self._model.transcribe(samples, language=language, beam_size=1, **_OPTIONS)
        return [_segment(vars(each)) for each in segments], info.language


class OpenAIWhisper:
    """OpenAI's reference engine in PyTorch: slower on long recordings, and the yardstick for the other."""

    def __init__(self, folder: Path) -> None:
        self._model = load_openai_whisper(folder)
        from whisper.tokenizer import LANGUAGES

        self.languages = frozenset(LANGUAGES) if self._model.is_multilingual else frozenset({"en"})
        self._lock = threading.Lock()  # its cache is in hooks on the module: two recordings at once would mix

    def read(self, samples: np.ndarray, language: str | None) -> tuple[list[Segment], str]:
        # No beam_size: openai-whisper takes 1 for a beam search with one beam, and greedy is its default.
        with self._lock:
            result = self._model.transcribe(samples, language=language, fp16=False, **_OPTIONS)
        return [_segment(each) for each in result["segments"]], result["language"]


ENGINES: dict[str, type[FasterWhisper] | type[OpenAIWhisper]] = {
    "faster-whisper": FasterWhisper,
    "openai-whisper": OpenAIWhisper,
}


class Transcriber:
    """`folder` holds FILES; `language` is a code such as "en", or None to detect it from the speech."""

    def __init__(self, engine: str, folder: Path, language: str | None = "en") -> None:
        if engine not in ENGINES:
            raise UserError(f"Unknown speech engine {engine!r}. Choose one of: {', '.join(ENGINES)}.")
        # Checked here because faster-whisper looks on the model hub for a tokenizer that is missing.
        for name in FILES:
            if not any(folder.glob(name)):
                raise UserError(f"{folder / name} is missing. For the installed weights: {REMEDY}")
        self._engine = ENGINES[engine](folder)
        if language is not None and language not in self._engine.languages:
            known = ", ".join(sorted(self._engine.languages))
            raise UserError(f"This speech model does not know the language {language!r}. It knows: {known}.")
        self.language = language

    def transcribe(self, audio: str | Path | tuple[int, np.ndarray], language: str = "") -> Heard:
        """A path, or (rate, samples) as Gradio gives; UserError where it cannot be read or is too long. `language` is a
        code, "auto" to detect it, or "" for this transcriber's own."""
        spoken = {"": self.language, "auto": None}.get(language, language)
        if spoken is not None and spoken not in self._engine.languages:
            raise UserError(f"The speech model does not know the language {spoken!r}. Please choose another.")
        samples = open_audio(audio)
        seconds = len(samples) / SAMPLE_RATE
        speech = keep_speech(samples)
        if len(speech) < MIN_SECONDS * SAMPLE_RATE:
            return Heard("", seconds, language=spoken or "")
        segments, heard_as = self._engine.read(speech, spoken)
        kept = [each.text for each in plausible(segments, len(speech) / SAMPLE_RATE)]
        return Heard(" ".join(" ".join(kept).split()), seconds, language=heard_as)


def keep_speech(samples: np.ndarray) -> np.ndarray:
    """float32 [T] -> [T'], T' <= T: the parts with a voice in them, by faster-whisper's Silero detector."""
    found = _faster_whisper().vad.get_speech_timestamps(samples)
    parts = [samples[each["start"] : each["end"]] for each in found]
    return np.concatenate(parts) if parts else samples[:0]
