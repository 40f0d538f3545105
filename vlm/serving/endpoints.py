"""What programs call: the endpoints /image, /text and /voice.

The first line and the arguments of each docstring are its description. Answers come in pieces, the last one whole, so that
a program that stops listening stops the model.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from vlm.chat.answer import Answer, Style
from vlm.chat.reply import MAX_PICTURES
from vlm.errors import UserError
from vlm.inputs.audio import MAX_RECORDING_BYTES
from vlm.inputs.images import MAX_PICTURE_BYTES
from vlm.serving.arguments import file_of, files_of, text_of
from vlm.serving.events import MODEL
from vlm.serving.sent_files import publish_function, sent_files
from vlm.serving.serving import Serving
from vlm.serving.settings_panel import SettingsPanel, checked_settings

Answers = Iterator[tuple[str, dict[str, Any]]]
REFRESH_SECONDS = 0.1  # while an answer grows


class QuestionEndpoints:
    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def image(
        self,
        question: str,
        images: list[str] | None,
        audio: str | None = None,
        max_new_tokens: float | None = None,
        temperature: float | None = None,
        clean_up: bool | None = None,
        style: Style | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: float | None = None,
    ) -> Answers:
        """Answer a question about one or more pictures. Returns the answer and how it came about.

        Args:
            question: The question in words; may be empty where a recording asks it.
            images: The pictures, as files.
            audio: The spoken question, as a file, or nothing.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 takes the likeliest words; higher values vary them.
            clean_up: Whether the base model may polish the adapter's draft.
            style: full for sentences, keywords for the words that matter.
            top_p: Above temperature 0, only the likeliest tokens that together reach this probability are drawn.
            min_p: Above temperature 0, only tokens at least this likely, compared with the likeliest, are drawn.
            repetition_penalty: 1 for none; higher values keep the answer from repeating itself.
            seed: Above temperature 0, another seed draws another answer.
        """
        pictures = files_of(images, "images", MAX_PICTURES, MAX_PICTURE_BYTES)
        if not pictures:
            raise UserError("Please send at least one picture.")
        spoken = file_of(audio, "audio", MAX_RECORDING_BYTES)
        chosen = (max_new_tokens, temperature, clean_up, style, top_p, min_p, repetition_penalty, seed)
        yield from self._answers(question, pictures, spoken, *chosen)

    def text(
        self,
        question: str,
        max_new_tokens: float | None = None,
        temperature: float | None = None,
        style: Style | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: float | None = None,
    ) -> Answers:
        """Answer a question without a picture. Returns the answer and how it came about.

        Args:
            question: The question.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 takes the likeliest words; higher values vary them.
            style: full for sentences, keywords for the words that matter.
            top_p: Above temperature 0, only the likeliest tokens that together reach this probability are drawn.
            min_p: Above temperature 0, only tokens at least this likely, compared with the likeliest, are drawn.
            repetition_penalty: 1 for none; higher values keep the answer from repeating itself.
            seed: Above temperature 0, another seed draws another answer.
        """
        chosen = (max_new_tokens, temperature, None, style, top_p, min_p, repetition_penalty, seed)
        yield from self._answers(question, (), None, *chosen)

    def voice(
        self,
        audio: str | None,
        max_new_tokens: float | None = None,
        temperature: float | None = None,
        style: Style | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: float | None = None,
    ) -> Answers:
        """Answer a spoken question. Returns the answer and how it came about, what was heard among it.

        Args:
            audio: The recording, as a file.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 takes the likeliest words; higher values vary them.
            style: full for sentences, keywords for the words that matter.
            top_p: Above temperature 0, only the likeliest tokens that together reach this probability are drawn.
            min_p: Above temperature 0, only tokens at least this likely, compared with the likeliest, are drawn.
            repetition_penalty: 1 for none; higher values keep the answer from repeating itself.
            seed: Above temperature 0, another seed draws another answer.
        """
        spoken = file_of(audio, "audio", MAX_RECORDING_BYTES)
        if not spoken:
            raise UserError("Please send a recording.")
        chosen = (max_new_tokens, temperature, None, style, top_p, min_p, repetition_penalty, seed)
        yield from self._answers("", (), spoken, *chosen)

    def _answers(self, question: str, images: Sequence[str], audio: str | None, *chosen: Any) -> Answers:
        """`chosen` is in the order of `SettingsPanel`, with None for what is left as the preset has it."""
        shown, latest = 0.0, Answer()
        asked = text_of(question, "question")
        settings = checked_settings(self.serving.model.settings, *chosen)
        with closing(self.serving.stream(asked, images, audio, (), settings)) as snapshots:
            for latest in snapshots:
                if latest.stage != "done" and time.monotonic() - shown > REFRESH_SECONDS:
                    yield latest.text, latest.to_dict()
                    shown = time.monotonic()
        yield latest.text, latest.to_dict()


def publish(endpoints: QuestionEndpoints, settings: SettingsPanel) -> None:
    """The endpoints' own components are not on the page; the settings are the page's, with their defaults.

    What is sent is checked here and not by the components, whose errors are not meant for people."""
    question = gr.Textbox(label="Question", visible=False)
    images = sent_files("Pictures", "cat.jpg", several=True)
    audio = sent_files("Recording", "question.wav")
    results = [gr.Textbox(label="Answer", visible=False), gr.JSON(label="How it came about", visible=False)]
    without_clean_up = [component for component in settings if component is not settings.clean_up]
    for function, inputs in (
        (endpoints.image, [question, images, audio, *settings]),
        (endpoints.text, [question, *without_clean_up]),
        (endpoints.voice, [audio, *without_clean_up]),
    ):
        publish_function(function, inputs, results, MODEL)
