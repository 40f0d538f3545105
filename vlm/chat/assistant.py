"""Question, pictures and speech -> a streamed answer with its trace. The app, the shell and Python all enter here.

A question about a picture goes through the adapter, and its draft through a clean-up pass by the base model. Text goes
straight to the base model. Speech is transcribed first and then treated like typed words.
"""

import dataclasses
import gc
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from vlm.chat import clean_up
from vlm.chat.tidy import strip_echo, tidy, to_keywords
from vlm.config import AnswersConfig, ModelConfig
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.inputs.speech import Transcriber
from vlm.model.adapter import adapter_name, load_adapter, model_config_of
from vlm.model.sizes import choose_precision
from vlm.model.vlm import VisionLanguageModel, VisualTurn, build_model
from vlm.weights.resolve import resolve

Picture = Image.Image | str | Path
Steps = Generator["Answer", None, "Answer"]  # yields snapshots on the way, returns the last one
Style = Literal["full", "keywords"]

MAX_QUESTION_CHARACTERS = 8_000
MAX_PICTURES = 8  # in one conversation: each takes 17 visual tokens and a line of tags


@dataclass(frozen=True)
class Settings:
    """What a person may choose; the preset has the defaults."""

    max_new_tokens: int = 200
    temperature: float = 0.0
    clean_up: bool = True
    style: Style = "full"

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens <= 1024:
            raise UserError("The length must be between 1 and 1024 tokens.")
        if not 0 <= self.temperature <= 2:
            raise UserError("The temperature must be between 0 and 2.")
        if self.style not in ("full", "keywords"):
            raise UserError("The answer style must be full or keywords.")


@dataclass(frozen=True)
class Turn:
    """One earlier exchange of the conversation."""

    question: str
    answer: str
    images: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A snapshot of an answer; the last one has the stage "done". `seen` and `looked_up` are the tags of the latest
    pictures and of the things that the question names (vlm/model/tagger.py), as the prompt has them. `seconds` holds transcribe,
    look, first_token, generate, clean_up and total, each where it has happened."""

    text: str = ""
    stage: Literal["transcribing", "looking", "drafting", "cleaning", "done"] = "drafting"
    route: Literal["image", "text"] = "text"
    transcript: str | None = None
    seen: str = ""
    looked_up: str = ""
    draft: str | None = None
    clean_up: str | None = None  # "accepted", "unchanged", "off" or "rejected: <reason>"
    model: str = ""
    adapter: str | None = None
    device: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    tokens_per_second: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Assistant:
    """One model, shared by all who ask. Holds no conversation: what is said before comes in as `history`."""

    def __init__(
        self,
        model: VisionLanguageModel,
        transcriber: Transcriber,
        config: ModelConfig,
        adapter_folder: Path | None,
        device: str,
    ) -> None:
        self.model, self.transcriber, self.config = model, transcriber, config
        self.adapter_folder = adapter_folder
        self.adapter = adapter_name(adapter_folder) if adapter_folder else None
        self.model_name, self.device = config.language.weights, device
        answers = config.answers
        self.settings = Settings(
            answers.max_new_tokens, answers.temperature, answers.clean_up, _style(answers.style)
        )

    @property
    def description(self) -> str:
        return f"{self.model_name} · adapter {self.adapter or 'none'} · {self.device}"

    def answer(
        self,
        question: str = "",
        images: Sequence[Picture] = (),
        audio: Any = None,
        history: Sequence[Turn] = (),
        settings: Settings | None = None,
    ) -> Answer:
        """The finished answer. Arguments as for `stream`."""
        *_, last = self.stream(question, images, audio, history, settings)
        return last

    def stream(
        self,
        question: str = "",
        images: Sequence[Picture] = (),
        audio: Any = None,
        history: Sequence[Turn] = (),
        settings: Settings | None = None,
    ) -> Iterator[Answer]:
        """Snapshots of the answer, each fuller than the one before; closing the iterator stops the model.

        `images` and `audio` are paths (or a PIL picture; or a sample rate and samples); spoken words are added to
        the typed ones. Raises UserError for input that cannot be answered."""
        start = time.perf_counter()
        settings = settings or self.settings
        answer = Answer(model=self.model_name, device=self.device)
        if audio is not None:
            yield replace(answer, stage="transcribing")
            answer = self._transcribe(answer, audio)
            yield answer
        asked = " ".join(part for part in (question.strip(), answer.transcript or "") if part)
        _check_question(asked)
        last = yield from self.reply(answer, asked, images, history, settings)
        yield replace(last, stage="done", seconds=last.seconds | {"total": time.perf_counter() - start})

    def reply(
        self,
        answer: Answer,
        question: str,
        images: Sequence[Picture],
        history: Sequence[Turn],
        settings: Settings,
    ) -> Steps:
        """All that the model does for an answer, once the question is in words. Raises UserError."""
        pictures = [list(turn.images) for turn in history] + [list(images)]
        try:
            if any(pictures):
                return (yield from self._answer_picture(answer, question, pictures, history, settings))
            return (yield from self._answer_text(answer, question, history, settings))
        except torch.OutOfMemoryError:
            pass  # the memory is free once the error, whose frames hold it, is gone
        free_memory()
        raise UserError(
            "The GPU has too little memory for this answer. Please ask for a shorter one, with fewer pictures, or "
            "start a new conversation."
        )

    def _transcribe(self, answer: Answer, audio: Any) -> Answer:
        start = time.perf_counter()
        transcript = self.transcriber.transcribe(audio)
        if not transcript.text:
            raise UserError(
                "Nothing was heard in the recording. Check the microphone, speak up, and try again."
            )
        seconds = {"transcribe": time.perf_counter() - start}
        return replace(answer, transcript=transcript.text, seconds=seconds)

    def _answer_text(
        self, answer: Answer, question: str, history: Sequence[Turn], settings: Settings
    ) -> Steps:
        turns = [VisualTurn(turn.question, turn.answer) for turn in history] + [VisualTurn(question)]
        answer = yield from self._generate(answer, turns, settings, adapter=False)
        text = answer.text.strip()
        return replace(answer, text=to_keywords(text) if settings.style == "keywords" else text)

    def _answer_picture(
        self,
        answer: Answer,
        question: str,
        pictures: Sequence[Sequence[Picture]],
        history: Sequence[Turn],
        settings: Settings,
    ) -> Steps:
        if self.adapter is None:
            raise UserError(
                f"The preset {self.config.name!r} has no adapter yet, so it cannot see. "
                "Train one with python -m training.finetune, or name one with VLM_ADAPTER."
            )
        answer = replace(answer, route="image", adapter=self.adapter, stage="looking")
        yield answer
        start = time.perf_counter()
        turns = self._look(question, pictures, history)
        latest = next(turn.sights for turn in reversed(turns) if turn.sights)
        answer = replace(
            answer,
            seen="; ".join(sight.tags for sight in latest),
            looked_up="; ".join(filter(None, (sight.asked(question) for sight in latest))),
            seconds=answer.seconds | {"look": time.perf_counter() - start},
        )
        system = self.config.answers.image_system
        answer = yield from self._generate(answer, turns, settings, adapter=True, system=system)
        answer = replace(answer, draft=answer.text.strip(), text=tidy(strip_echo(answer.text, question)))
        answer = yield from self._clean_up(answer, question, settings)
        return replace(answer, text=to_keywords(answer.text)) if settings.style == "keywords" else answer

    def _look(
        self, question: str, pictures: Sequence[Sequence[Picture]], history: Sequence[Turn]
    ) -> list[VisualTurn]:
        if sum(map(len, pictures)) > MAX_PICTURES:
            raise UserError(f"A conversation can hold {MAX_PICTURES} pictures. Please start a new one.")
        sights = iter(self.model.see([open_image(picture) for group in pictures for picture in group]))
        seen = [tuple(next(sights) for _ in group) for group in pictures]
        said = [(turn.question, turn.answer) for turn in history] + [(question, "")]
        return [VisualTurn(*words, group) for words, group in zip(said, seen, strict=True)]

    def _generate(
        self,
        answer: Answer,
        turns: Sequence[VisualTurn],
        settings: Settings,
        adapter: bool,
        system: str | None = None,
    ) -> Steps:
        start = time.perf_counter()
        options = self._options(settings.max_new_tokens, settings.temperature)
        for generated in self.model.stream(turns, options, adapter, system):
            passed = time.perf_counter() - start
            seconds = {"first_token": passed} | answer.seconds | {"generate": passed}
            answer = replace(
                answer, stage="drafting", text=generated.text, seconds=seconds, tokens=generated.tokens
            )
            yield answer
        passed = time.perf_counter() - start
        return replace(answer, tokens_per_second=answer.tokens / passed if passed else 0.0)

    def _clean_up(self, answer: Answer, question: str, settings: Settings) -> Steps:
        """The base model rewrites the draft; what it makes is taken only if it keeps the draft's meaning."""
        if not settings.clean_up or not answer.text:
            return replace(answer, clean_up="off")
        answer = replace(answer, stage="cleaning")
        yield answer
        start = time.perf_counter()
        options = self._options(clean_up.MAX_NEW_TOKENS, temperature=0.0)
        rewriting = ""
        for generated in self.model.stream(
            clean_up.request(question, answer.text), options, False, clean_up.SYSTEM
        ):
            rewriting = generated.text
        text, verdict = clean_up.judge(question, answer.text, rewriting)
        seconds = answer.seconds | {"clean_up": time.perf_counter() - start}
        return replace(answer, text=text, clean_up=verdict, seconds=seconds)

    def _options(self, max_new_tokens: int, temperature: float) -> AnswersConfig:
        return replace(self.config.answers, max_new_tokens=max_new_tokens, temperature=temperature)


def _check_question(question: str) -> None:
    if not question:
        raise UserError("Please type or speak a question.")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise UserError(
            f"The question has {len(question):,} characters and at most {MAX_QUESTION_CHARACTERS:,} fit. "
            "Please shorten it."
        )


def free_memory() -> None:
    """Give back to the GPU what is held by no one any more, or only by itself."""
    gc.collect()
    torch.cuda.empty_cache()


def _style(name: str) -> Style:
    return "keywords" if name == "keywords" else "full"


def load_assistant(
    preset: str = "embedded", adapter: str | None = None, device: str | None = None
) -> Assistant:
    """Build everything a preset is made of. `adapter` is a folder or a shipped name; `device` defaults to the best."""
    config, folder = model_config_of(preset, adapter)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = build_model(choose_precision(config, device), device)
        if folder is not None:
            load_adapter(model, folder)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The GPU has too little memory for the preset {preset!r}. Choose a smaller one, such as embedded, or "
            "free some of it."
        ) from error
    model.eval()
    speech = config.speech
    transcriber = Transcriber(speech.engine, resolve(speech.weights), speech.language)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return Assistant(model, transcriber, config, folder, f"{name}, {model.language.precision}")
