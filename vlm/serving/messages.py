"""A conversation -> the messages of a Gradio chat: pictures and question, trace, answer.

All words are plain text, whoever wrote them: a question stays what was typed, an answer cannot bring in pictures or
links from elsewhere, and control tokens are shown as they are.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vlm.chat.answer import Answer
from vlm.chat.conversation import Conversation, Exchange, trace_of
from vlm.serving.limits import told

Message = dict[str, Any]

WORD_JOINER = "\u2060"  # invisible
STAGES = {
    "transcribing": "Listening to the recording…",
    "looking": "Looking at the picture…",
    "drafting": "Writing…",
    "cleaning": "Checking the wording…",
}


def literal(text: str) -> str:
    """Text that the chat shows as it is. Gradio takes `<b>` and `&lt;` for markup even where Markdown is off. An invisible
    character after the sign prevents that and, unlike an entity, does not disturb whoever edits the text."""
    return text.replace("<", f"<{WORD_JOINER}").replace("&", f"&{WORD_JOINER}")


def typed(text: str) -> str:
    """The text that `literal` was given."""
    return text.replace(WORD_JOINER, "")


def numbered_messages(conversation: Conversation) -> list[tuple[int, Message]]:
    """Every message with the number of its exchange."""
    last = len(conversation.exchanges) - 1
    return [
        (number, message)
        for number, exchange in enumerate(conversation.exchanges)
        for message in _messages_of(exchange, growing=conversation.busy and number == last)
    ]


def messages(conversation: Conversation) -> list[Message]:
    return [message for _, message in numbered_messages(conversation)]


def _messages_of(exchange: Exchange, growing: bool) -> list[Message]:
    found = [_html("user", _pictures(exchange.pictures))] if exchange.pictures else []
    found.append(_text("user", exchange.asked or "Spoken question…"))
    if exchange.answer:
        found.append(_html("assistant", _stage(exchange.answer) if growing else _trace(exchange.answer)))
    if exchange.text:
        found.append(_text("assistant", exchange.text))
    return found


def _text(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": literal(text)}]}


def _html(role: str, html: str) -> Message:
    # What Gradio makes of a gr.HTML. Making a gr.HTML for each message at every redrawing takes 100 times as long.
    part = {"type": "component", "component": "html", "value": html, "constructor_args": {}, "props": {}}
    return {"role": role, "content": [part]}


def _pictures(paths: Sequence[str]) -> str:
    images = [f'<img src="gradio_api/file={quote(path)}" alt="{escape(Path(path).name)}">' for path in paths]
    return f'<div class="pictures">{"".join(images)}</div>'


def _stage(answer: Answer) -> str:
    words = STAGES.get(answer.stage, "")
    if answer.stage == "waiting":
        words = f"Waiting for your turn, about {told(answer.seconds['wait'])}…"
    return f'<p class="stage">{words}</p>'


def _trace(answer: Answer) -> str:
    stopped = "" if answer.stage == "done" else "Stopped early. "
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in trace_of(answer))
    summary = f"<summary>{stopped}How this answer came about</summary>"
    notes = "".join(f'<p class="note">{note}</p>' for note in _notes(answer))
    return f'<details class="trace">{summary}<dl>{rows}</dl></details>{notes}'


def _notes(answer: Answer) -> list[str]:
    """What the person should know without opening the trace."""
    notes = []
    if answer.left_out == 1:
        notes.append("The oldest turn no longer fits and was left out.")
    if answer.left_out > 1:
        notes.append(f"The {answer.left_out} oldest turns no longer fit and were left out.")
    if answer.set_aside:
        notes.append("This model knows one picture at a time: what was said before the latest was set aside.")
    if answer.stage == "done" and not answer.ended:
        notes.append("The answer was cut off at the length limit in Settings.")
    return notes
