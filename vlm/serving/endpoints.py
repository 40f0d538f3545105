"""What programs call: the endpoints /image, /text and /voice of the page, without the page.

The first line and the arguments of each docstring are its description, also over MCP.
"""

from collections.abc import Sequence
from typing import Any

from vlm.chat.assistant import Settings, Style
from vlm.errors import UserError
from vlm.serving.switch import Serving


def settings_from(max_new_tokens: float, temperature: float, clean_up: bool, style: Style) -> Settings:
    """What the page's components and JSON give, as the assistant takes it."""
    return Settings(int(max_new_tokens), float(temperature), clean_up, style)


class Endpoints:
    """What programs call. Each docstring is the description that clients, and MCP, are given."""

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
    ) -> tuple[str, dict[str, Any]]:
        """Answer a question about one or more pictures. Returns the answer and how it came about.

        Args:
            question: The question in words; may be empty where a recording asks it.
            images: The pictures, as files.
            audio: The spoken question, as a file, or nothing.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            clean_up: Whether the base model may polish the adapter's draft.
            style: full for sentences, keywords for the words that matter.
        """
        if not images:
            raise UserError("Please send at least one picture.")
        settings = settings_from(max_new_tokens, temperature, clean_up, style)
        return self._finish(question, images, audio, settings)

    def text(
        self, question: str, max_new_tokens: float, temperature: float, style: Style
    ) -> tuple[str, dict[str, Any]]:
        """Answer a question without a picture. Returns the answer and how it came about.

        Args:
            question: The question.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            style: full for sentences, keywords for the words that matter.
        """
        return self._finish(question, (), None, settings_from(max_new_tokens, temperature, True, style))

    def voice(
        self, audio: str | None, max_new_tokens: float, temperature: float, style: Style
    ) -> tuple[str, dict[str, Any]]:
        """Answer a spoken question. Returns the answer and how it came about, what was heard among it.

        Args:
            audio: The recording, as a file.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            style: full for sentences, keywords for the words that matter.
        """
        if not audio:
            raise UserError("Please send a recording.")
        return self._finish("", (), audio, settings_from(max_new_tokens, temperature, True, style))

    def _finish(
        self, question: str | None, images: Sequence[str], audio: str | None, settings: Settings
    ) -> tuple[str, dict[str, Any]]:
        answer = self.serving.assistant.answer(question or "", images, audio, settings=settings)
        return answer.text, answer.to_dict()
