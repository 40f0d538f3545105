"""The assistant: question, pictures and speech -> a streamed answer. The app, the shell and Python all enter here.

Speech is transcribed first and then treated like typed words; the rest is vlm/chat/reply.py.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vlm.chat.answer import LONGEST_QUESTION, Answer, Picture, Pictures, Settings, Turn, each_of
from vlm.chat.local_writer import LocalWriter, Sights
from vlm.chat.remote_writer import RemoteWriter
from vlm.chat.reply import Pipeline, Steps
from vlm.chat.writer import Writer
from vlm.config import ModelConfig, SpeechConfig
from vlm.engines import Host
from vlm.engines.build import build_engine, closed_on_failure
from vlm.engines.remote import server_of_environment
from vlm.errors import UserError
from vlm.inputs.speech import Heard, Transcriber, import_packages
from vlm.machine import share_heaps
from vlm.model.adapter import load_eyes, lora_folder
from vlm.model.adapter_fit import model_config_of
from vlm.model.adapter_folder import adapter_name, fusion_file, knows_several_pictures
from vlm.model.eyes import build_eyes
from vlm.weights.resolve import public_name, resolve


class Assistant:
    """One model, shared by all who ask. Holds no conversation: what is said before comes in as `history`.

    `notice` is a sentence that people should read, or ""."""

    def __init__(
        self,
        pipeline: Pipeline,
        transcriber: Transcriber,
        config: ModelConfig,
        adapter_folder: Path | None,
        notice: str = "",
    ) -> None:
        self.pipeline, self.transcriber, self.config, self.notice = pipeline, transcriber, config, notice
        self.adapter_folder = adapter_folder
        self.adapter = adapter_name(adapter_folder) if adapter_folder else config.remote_adapter
        answers = config.answers
        self.settings = Settings(
            max_new_tokens=answers.max_new_tokens,
            temperature=answers.temperature,
            clean_up=answers.clean_up,
            style=answers.style,  # type: ignore[arg-type]  # checked there
            top_p=answers.top_p,
            min_p=answers.min_p,
            repetition_penalty=answers.repetition_penalty,
        )

    @property
    def model(self) -> str:
        """The language model, as everyone may know it."""
        return public_name(self.config.language.weights)

    @property
    def engine(self) -> Host:
        return self.pipeline.writer.engine

    @property
    def description(self) -> str:
        parts = self.model, f"adapter {self.adapter or 'none'}", self.engine.name
        return " · ".join([*parts, self.engine.device])

    def warm_up(self) -> Iterator[None]:
        """Make ready for the first answers, a bit with each step of the iterator; may run while others are given."""
        pipeline = self.pipeline
        return pipeline.writer.warm_up(pipeline.image_system, pipeline.text_system)

    def close(self) -> None:
        """Give the model's memory back."""
        self.engine.close()

    def answer(
        self,
        question: str = "",
        images: Pictures = (),
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
        images: Pictures = (),
        audio: Any = None,
        history: Sequence[Turn] = (),
        settings: Settings | None = None,
        begun: str = "",
    ) -> Iterator[Answer]:
        """Snapshots of the answer, each fuller than the one before; closing the iterator stops the model. `begun` is what
        there is of the answer already, where one that was cut off is to go on.

        `images`, one or several, and `audio` are paths (or a PIL picture; or a sample rate and samples, or what was heard
        already); spoken words are added to the typed ones. Raises UserError for input that cannot be answered."""
        start = time.perf_counter()
        settings = settings or self.settings
        engine, preset = self.engine, self.config.name
        answer = Answer(model=self.model, engine=engine.name, device=engine.device, preset=preset)
        if audio is not None:
            yield replace(answer, stage="transcribing")
            heard = audio if isinstance(audio, Heard) else self.hear(audio, settings.language)
            start = min(start, time.perf_counter() - heard.seconds)  # it may have been heard before
            if not heard.text:
                raise UserError(
                    "Nothing was heard in the recording. Check the microphone, speak up, and try again."
                )
            answer = replace(answer, transcript=heard.text, seconds={"transcribe": heard.seconds})
            yield answer
        asked = " ".join(part for part in (question.strip(), answer.transcript or "") if part)
        _check_question(asked)
        pictures = each_of(images)
        if pictures or any(turn.images for turn in history):
            self._check_sight()
            answer = replace(answer, adapter=self.adapter)
        last = yield from self._reply(answer, asked, pictures, history, settings, begun)
        yield replace(last, stage="done", seconds=last.seconds | {"total": time.perf_counter() - start})

    def _reply(
        self,
        answer: Answer,
        question: str,
        images: Sequence[Picture],
        history: Sequence[Turn],
        settings: Settings,
        begun: str,
    ) -> Steps:
        try:
            return (yield from self.pipeline.reply(answer, question, images, history, settings, begun))
        except torch.OutOfMemoryError:
            pass  # the memory is free once the error, whose frames hold it, is gone
        free_memory()
        raise UserError(
            "The GPU has too little memory for this answer. Please ask for a shorter one, with fewer pictures, or "
            "start a new conversation."
        )

    def read_ahead(self, images: Sequence[Picture], history: Sequence[Turn] = ()) -> Iterator[None]:
        """Look at pictures while the question about them is still typed or spoken, so that its answer begins sooner. It is
        read bit by bit; closing the iterator stops it. Raises UserError for what cannot be looked at."""
        try:
            yield from self.pipeline.read_ahead(images, history)
            return
        except torch.OutOfMemoryError:
            pass  # said when the question comes
        free_memory()

    def hear(self, audio: Any, language: str = "") -> Heard:
        """The words of a recording. `language` as in `Settings`."""
        start = time.perf_counter()
        heard = self.transcriber.transcribe(audio, language)
        return replace(heard, seconds=time.perf_counter() - start)

    def _check_sight(self) -> None:
        if not self.pipeline.writer.sees:
            raise UserError(
                f"The preset {self.config.name!r} has no adapter yet, so it cannot see. "
                "Train one with python -m training.finetune, or name one with VLM_ADAPTER."
            )


def _check_question(question: str) -> None:
    if not question:
        raise UserError("Please type or speak a question.")
    try:
        question.encode()
    except UnicodeEncodeError:  # of a terminal with another encoding, or cut out of a text
        raise UserError("The question holds half of a character. Please write it again.") from None
    if len(question) > LONGEST_QUESTION:
        raise UserError(
            f"The question has {len(question):,} characters and at most {LONGEST_QUESTION:,} fit. "
            "Please shorten it."
        )


def free_memory() -> None:
    """Give back to the GPU what is held by no one any more, or only by itself."""
    gc.collect()
    torch.cuda.empty_cache()


def load_assistant(
    preset: str | None = "embedded", adapter: str | None = None, device: str | None = None
) -> Assistant:
    """Build everything a preset is made of. `adapter` is a folder or a shipped name; without a preset (None) what it was
    trained for is built. `device` defaults to the best."""
    share_heaps()
    config, folder = model_config_of(preset, adapter)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    import_packages(config.speech.engine)
    with ThreadPoolExecutor(1, "speech") as pool:
        # a second, beside the language model's three
        transcriber = pool.submit(_load_transcriber, config.speech)
        try:
            writer, notice = (_remote(config), "") if config.is_remote else _local(config, folder, device)
        except torch.OutOfMemoryError as error:
            from vlm.model.sizes import smaller_than  # and Transformers' models with it

            told = f"The GPU has too little memory for the preset {config.name!r}."
            raise UserError(f"{told} {smaller_than(config)}") from error
        answers = config.answers
        with closed_on_failure(writer.engine):
            several = folder is None or knows_several_pictures(folder)
            said = answers.image_system, answers.text_system
            pipeline = Pipeline(writer, *said, several, puts_right=answers.clean_up)
            return Assistant(pipeline, transcriber.result(), config, folder, notice)


def _local(config: ModelConfig, folder: Path | None, device: str) -> tuple[Writer, str]:
    """The model in this process, and what people should know about it."""
    lora, fusion = (lora_folder(folder), fusion_file(folder)) if folder else (None, None)
    built = build_engine(config, lora, device, fusion)
    sights = None
    if folder:
        with closed_on_failure(built.engine):
            eyes = build_eyes(config, built.embedding_size, built.device)
            load_eyes(eyes, folder)
            sights = Sights(eyes)
    return LocalWriter(built.engine, built.tokenizer, sights), built.notice


def _remote(config: ModelConfig) -> Writer:
    """The model on the server that the environment names."""
    return RemoteWriter(server_of_environment(), config.language.weights, config.remote_adapter)


def _load_transcriber(speech: SpeechConfig) -> Transcriber:
    return Transcriber(speech.engine, resolve(speech.weights), speech.language)
