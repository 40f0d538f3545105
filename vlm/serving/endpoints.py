"""What programs call: the endpoints /image, /text and /voice.

The first line and the arguments of each docstring are its description, also over MCP.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from vlm.chat.answer import Settings, Style
from vlm.errors import UserError
from vlm.serving.plain_errors import plainly
from vlm.serving.settings_panel import SettingsPanel, settings_from
from vlm.serving.switch import Serving

Answered = tuple[str, dict[str, Any]]


class Endpoints:
    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def image(
        self,
        question: str,
        images: list[str] | None,
        audio: str | None = None,
        max_new_tokens: float = Settings.max_new_tokens,
        temperature: float = Settings.temperature,
        clean_up: bool = Settings.clean_up,
        style: Style = Settings.style,
        top_p: float = Settings.top_p,
        min_p: float = Settings.min_p,
        repetition_penalty: float = Settings.repetition_penalty,
        seed: float = Settings.seed,
    ) -> Answered:
        """Answer a question about one or more pictures. Returns the answer and how it came about.

        Args:
            question: The question in words; may be empty where a recording asks it.
            images: The pictures, as files.
            audio: The spoken question, as a file, or nothing.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            clean_up: Whether the base model may polish the adapter's draft.
            style: full for sentences, keywords for the words that matter.
            top_p: Above temperature 0, only the likeliest tokens that together reach this probability are drawn.
            min_p: Above temperature 0, only tokens at least this likely, compared with the likeliest, are drawn.
            repetition_penalty: 1 for none; higher values keep the answer from repeating itself.
            seed: Above temperature 0, another seed draws another answer.
        """
        if not images:
            raise UserError("Please send at least one picture.")
        chosen = (max_new_tokens, temperature, clean_up, style, top_p, min_p, repetition_penalty, seed)
        return self._finish(question, images, audio, settings_from(*chosen))

    def text(
        self,
        question: str,
        max_new_tokens: float = Settings.max_new_tokens,
        temperature: float = Settings.temperature,
        style: Style = Settings.style,
        top_p: float = Settings.top_p,
        min_p: float = Settings.min_p,
        repetition_penalty: float = Settings.repetition_penalty,
        seed: float = Settings.seed,
    ) -> Answered:
        """Answer a question without a picture. Returns the answer and how it came about.

        Args:
            question: The question.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            style: full for sentences, keywords for the words that matter.
            top_p: Above temperature 0, only the likeliest tokens that together reach this probability are drawn.
            min_p: Above temperature 0, only tokens at least this likely, compared with the likeliest, are drawn.
            repetition_penalty: 1 for none; higher values keep the answer from repeating itself.
            seed: Above temperature 0, another seed draws another answer.
        """
        chosen = (max_new_tokens, temperature, True, style, top_p, min_p, repetition_penalty, seed)
        return self._finish(question, (), None, settings_from(*chosen))

    def voice(
        self,
        audio: str | None,
        max_new_tokens: float = Settings.max_new_tokens,
        temperature: float = Settings.temperature,
        style: Style = Settings.style,
        top_p: float = Settings.top_p,
        min_p: float = Settings.min_p,
        repetition_penalty: float = Settings.repetition_penalty,
        seed: float = Settings.seed,
    ) -> Answered:
        """Answer a spoken question. Returns the answer and how it came about, what was heard among it.

        Args:
            audio: The recording, as a file.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            style: full for sentences, keywords for the words that matter.
            top_p: Above temperature 0, only the likeliest tokens that together reach this probability are drawn.
            min_p: Above temperature 0, only tokens at least this likely, compared with the likeliest, are drawn.
            repetition_penalty: 1 for none; higher values keep the answer from repeating itself.
            seed: Above temperature 0, another seed draws another answer.
        """
        if not audio:
            raise UserError("Please send a recording.")
        chosen = (max_new_tokens, temperature, True, style, top_p, min_p, repetition_penalty, seed)
        return self._finish("", (), audio, settings_from(*chosen))

    def _finish(
        self, question: str | None, images: Sequence[str], audio: str | None, settings: Settings
    ) -> Answered:
        answer = self.serving.answer(question or "", images, audio, (), settings)
        return answer.text, answer.to_dict()


def publish(endpoints: Endpoints, settings: SettingsPanel, model: dict[str, Any]) -> None:
    """The endpoints' own components are not on the page; the settings are the page's, with their defaults."""
    question = gr.Textbox(label="Question", visible=False)
    images = gr.File(label="Pictures", file_count="multiple", visible=False)
    audio = gr.Audio(label="Recording", type="filepath", visible=False)
    results = [gr.Textbox(label="Answer", visible=False), gr.JSON(label="How it came about", visible=False)]
    without_clean_up = [component for component in settings if component is not settings.clean_up]
    for function, inputs in (
        (endpoints.image, [question, images, audio, *settings]),
        (endpoints.text, [question, *without_clean_up]),
        (endpoints.voice, [audio, *without_clean_up]),
    ):
        button = gr.Button(visible=False)
        button.click(plainly(function), inputs, results, api_name=function.__name__, **model)
