"""Where the model looked: a picture over the page, on request, with how far it has come."""

from collections.abc import Iterator
from contextlib import closing
from html import escape

import gradio as gr

from vlm.chat.answer import Answer
from vlm.chat.assistant import Assistant
from vlm.chat.conversation import Conversation
from vlm.chat.local_writer import LocalWriter
from vlm.chat.occlusion import Look, where_it_looked
from vlm.errors import UserError
from vlm.inputs.images import as_data_url
from vlm.serving.limits import told
from vlm.serving.plain_errors import plain_sentence
from vlm.serving.switch import Serving

JPEG_QUALITY = 85
CLOSE = '<button type="button" data-action="close">Close</button>'


class Looking:
    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def look(self, conversation: Conversation, chosen: gr.EventData) -> Iterator[str]:
        """The latest picture before an answer, covered piece by piece. -> what lies over the page"""
        try:
            picture, said = _about(conversation, int(chosen.at))
            with closing(self.serving.look(lambda assistant: _looks(assistant, picture, said))) as looks:
                for look in looks:
                    yield _shown(look)
        except Exception as problem:
            gr.Warning(plain_sentence(problem))
            yield ""


def _about(conversation: Conversation, number: int) -> tuple[str, str]:
    """The picture that answer `number` is about, and what it said."""
    asked = conversation.exchanges[: number + 1]
    pictures = [path for exchange in asked for path in exchange.present_pictures]
    if not asked or not pictures:
        raise UserError("The picture is no longer here. Add it again to see where the model looks.")
    return pictures[-1], asked[-1].text


def _looks(assistant: Assistant, picture: str, said: str) -> Iterator[Look]:
    writer = assistant.pipeline.writer
    if not isinstance(writer, LocalWriter) or writer.sights is None:
        raise UserError("The model's eyes are not on this machine, so there is nothing to show.")
    yield from where_it_looked(writer.sights.eyes, picture, said)


def _shown(look: Look | Answer) -> str:
    if isinstance(look, Answer):
        return _laid_over(f"<p>Waiting, about {told(look.seconds['wait'])}…</p><progress></progress>")
    name = f"“{escape(look.name)}”, {look.chance:.0%}"
    if look.picture is None:
        inside = f'<p>Looking for {name}…</p><progress max="1" value="{look.done:.2f}"></progress>'
    else:
        inside = (
            f'<img src="{as_data_url(look.picture, JPEG_QUALITY)}" alt="The picture, in colour what mattered">'
            f"<figcaption>In colour is what made it {name}; the rest matters little.</figcaption>"
        )
    return _laid_over(inside)


def _laid_over(inside: str) -> str:
    return f'<figure class="looked" role="dialog" aria-label="Where it looked">{inside}{CLOSE}</figure>'
