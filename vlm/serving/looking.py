"""Where the model looked: the pictures of an answer over the page, on request, with how far it has come."""

from collections.abc import Iterator
from contextlib import closing
from html import escape
from pathlib import Path

import gradio as gr

from vlm.chat.answer import Answer
from vlm.chat.assistant import Assistant
from vlm.chat.conversation import Conversation, latest_pictures
from vlm.chat.local_writer import LocalWriter
from vlm.chat.occlusion import Look, where_it_looked
from vlm.chat.one_by_one import own_answer
from vlm.errors import UserError
from vlm.inputs.images import as_data_url
from vlm.serving.browser_copy import recover
from vlm.serving.limits import duration
from vlm.serving.plain_errors import plain_sentence
from vlm.serving.serving import Serving

JPEG_QUALITY = 85
CLOSE = '<button type="button" data-action="close-look">Close</button>'


class Looking:
    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def look(self, conversation: Conversation, copy: str | None, chosen: gr.EventData) -> Iterator[str]:
        """The pictures that an answer is about, each covered piece by piece. -> what lies over the page"""
        try:
            recover(conversation, copy)
            number = int(chosen.at)
            about, answer = _about(conversation, number), conversation.exchanges[number].answer
            done = ""  # the pictures that are looked through

            def all_looks(assistant: Assistant) -> Iterator[Look]:
                _check_same_model(assistant, answer)
                for picture, said in about:
                    yield from _looks(assistant, picture, said)

            with closing(self.serving.look(all_looks, len(about))) as looks:
                for look in looks:
                    shown = done + _shown(look)
                    done = shown if isinstance(look, Look) and look.picture else done
                    yield _laid_over(shown)
        except Exception as problem:
            gr.Warning(plain_sentence(problem))
            yield ""


def _about(conversation: Conversation, number: int) -> list[tuple[str, str]]:
    """The pictures that answer `number` is about, the latest that came together, and what it said of each."""
    asked = conversation.exchanges[: number + 1]
    latest = enumerate(latest_pictures(asked))
    about = [(path, own_answer(asked[-1].text, place)) for place, path in latest if Path(path).is_file()]
    if not about:
        raise UserError("The picture is no longer here. Add it again to see where the model looks.")
    return about


def _check_same_model(assistant: Assistant, answer: Answer | None) -> None:
    if not answer or not answer.preset:
        return  # from before it was kept
    if (answer.preset, answer.adapter) != (assistant.config.name, assistant.adapter):
        raise UserError("Another model answers now. Ask again to see where it looks.")


def _looks(assistant: Assistant, picture: str, said: str) -> Iterator[Look]:
    writer = assistant.pipeline.writer
    if not isinstance(writer, LocalWriter) or writer.sights is None:
        raise UserError("The model's eyes are not on this machine, so there is nothing to show.")
    yield from where_it_looked(writer.sights.eyes, picture, said)


def _shown(look: Look | Answer) -> str:
    if isinstance(look, Answer):
        return f"<p>Waiting, about {duration(look.seconds['wait'])}…</p><progress></progress>"
    name = f"“{escape(look.name)}”"
    if look.picture is None:
        return f'<p>Looking for {name}…</p><progress max="1" value="{look.done:.2f}"></progress>'
    return (
        f'<img src="{as_data_url(look.picture, JPEG_QUALITY)}" alt="The picture, bright where it mattered">'
        f"<p>The bright parts look like {name} to the model ({100 * look.chance:.0f} %).</p>"
    )


def _laid_over(inside: str) -> str:
    return f'<div class="looked" role="dialog" aria-label="Where it looked">{inside}{CLOSE}</div>'
