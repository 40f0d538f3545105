"""A conversation -> the messages of a Gradio chat: pictures and question, answer, how it came about.

A question stays what was typed. An answer's Markdown is rendered (vlm/serving/markdown.py). Buttons name what they do in
`data-action`, and assets/page/page.js sends that to the handlers of the tab (vlm/serving/conversation_tab.py).
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vlm.chat.answer import Answer, Settings
from vlm.chat.conversation import Conversation, Exchange, latest_pictures, since_pictures
from vlm.chat.one_by_one import is_joined
from vlm.chat.trace import certainty_note, trace_of
from vlm.serving.limits import duration
from vlm.serving.markdown import to_html
from vlm.serving.thumbs import place_for_the_right_answer, thumbs
from vlm.serving.translations import in_all_languages

Message = dict[str, Any]

STAGES = {
    "transcribing": "Listening to the recording…",
    "looking": "Looking at the picture…",
    "drafting": "Writing…",
    "cleaning": "Checking the wording…",
}
FOLLOW_UPS = {  # with the word that shows that it was asked already, also of a thing by its name
    "What color is it?": r"colou?rs?",
    "Describe the picture.": "describe",
    "What is it used for?": "used?",
    "Is there a person in the picture?": "person|people",
    "Where could this be?": "where",
    "What is this?": "what is this",
}
FOLLOW_UPS_OF_SEVERAL = {"Describe the pictures.": "describe"}
# The rows of the trace whose values are words of the page
WORDED = {"Clean-up", "Left out", "Set aside", "Speed"}
SUGGESTED = 3  # of these, the first that were not asked yet
FOLDED_FROM = 1_000  # characters of a question, as many as fill the lines
LINES = 12  # of a folded question, as app.css cuts it


def messages(conversation: Conversation, kept: str = "") -> list[Message]:
    """Two for each exchange: the person's and the model's. `kept` is what the page says at the thumbs; "" for no thumbs."""
    last = len(conversation.exchanges) - 1
    found = []
    for number, exchange in enumerate(conversation.exchanges):
        growing = conversation.busy and number == last
        found.append(_html("user", _question(conversation, number, exchange)))
        if answer := exchange.answer:
            inside = _growing(answer) if growing else _answer(exchange, answer, number == last, kept)
            if number == last and not growing:
                inside += _follow_ups(conversation)
            found.append(_html("assistant", f'<article class="answer" data-at="{number}">{inside}</article>'))
    return found


def _html(role: str, html: str) -> Message:
    # What Gradio makes of a gr.HTML. Making a gr.HTML for each message at every redrawing takes 100 times as long.
    part = {"type": "component", "component": "html", "value": html, "constructor_args": {}, "props": {}}
    return {"role": role, "content": [part]}


def _question(conversation: Conversation, number: int, exchange: Exchange) -> str:
    said = f' translate="no">{escape(exchange.asked)}' if exchange.asked else ">Spoken question…"
    long = len(exchange.asked) > FOLDED_FROM or exchange.asked.count("\n") >= LINES
    words = f'<p class="words{" folded" * long}" dir="auto"{said}</p>'
    unfold = _button("unfold", "Show all") if long else ""
    edit = _button("edit", "Edit", f"Edit question {number + 1}")
    return (
        f'<article class="question" data-at="{number}">{_pictures(exchange.pictures)}{_recording(exchange)}{words}'
        f'<div class="actions">{_versions(conversation, number)}{unfold}{edit}</div></article>'
    )


def _versions(conversation: Conversation, number: int) -> str:
    """Where a question was asked in several ways: which one this is, and the way to the others."""
    count, place = len(conversation.versions(number)), conversation.place(number)
    if count < 2:
        return ""
    earlier = _button("turn", "‹", "Earlier version", step=-1, disabled=place == 0)
    later = _button("turn", "›", "Later version", step=1, disabled=place == count - 1)
    return f'<span class="versions">{earlier}<span>{place + 1} / {count}</span>{later}</span>'


def _button(action: str, shown: str, name: str = "", disabled: bool = False, **details: Any) -> str:
    data = "".join(f' data-{key}="{escape(str(value))}"' for key, value in details.items())
    label = f' aria-label="{escape(name)}" title="{escape(name)}"' if name else ""
    return (
        f'<button type="button" data-action="{action}"{data}{label}{" disabled" * disabled}>{shown}</button>'
    )


def file_address(path: str) -> str:
    return f"gradio_api/file={quote(path)}"


def _pictures(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return f'<div class="pictures">{"".join(map(_picture, paths))}</div>'


def _picture(path: str) -> str:
    name = escape(Path(path).name)
    if not Path(path).is_file():
        return f'<p class="lost">{name} is no longer here. Later answers do without it; add it again to go on with it.</p>'
    return _button("zoom", f'<img src="{file_address(path)}" alt="{name}">', f"Enlarge {Path(path).name}")


def _recording(exchange: Exchange) -> str:
    if not exchange.recording or not Path(exchange.recording).is_file():
        return ""
    return f'<audio controls preload="metadata" src="{file_address(exchange.recording)}"></audio>'


def _stage(answer: Answer) -> str:
    words = STAGES.get(answer.stage, "")
    if answer.stage == "waiting":
        words = f"Waiting for your turn, about {duration(answer.seconds['wait'])}…"
    return f'<p class="stage">{words}</p>'


def _growing(answer: Answer) -> str:
    return f'{_stage(answer)}<div class="words" dir="auto" translate="no">{to_html(answer.text)}</div>'


def _answer(exchange: Exchange, answer: Answer, last: bool, kept: str) -> str:
    notes = "".join(f'<p class="note">{note}</p>' for note in _notes(exchange, answer, last))
    words = f'<div class="words" dir="auto" translate="no">{to_html(answer.text)}</div>'
    actions = _actions(exchange, answer, last, kept)
    return f"{words}{notes}{actions}{_trace(answer, exchange.settings)}"


def _actions(exchange: Exchange, answer: Answer, last: bool, kept: str) -> str:
    buttons = [_button("copy", "Copy"), _button("read", "Read aloud")]
    if last:
        buttons.append(_button("again", "Try again"))
    if answer.seen:
        buttons.append(_button("looked", "Where it looked"))
    if not kept:
        return f'<div class="actions">{"".join(buttons)}</div>'
    return f'<div class="actions">{"".join(buttons)}{thumbs(exchange)}</div>{place_for_the_right_answer(kept, last)}'


def _trace(answer: Answer, settings: Settings | None) -> str:
    rows = trace_of(answer)
    if settings and settings.temperature:
        rows.append(("Temperature", f"{settings.temperature:g}"))
    stopped = "" if answer.stage == "done" else "Stopped early. "
    shown = "".join(f"<dt>{escape(label)}</dt>{_said(label, value)}" for label, value in rows)
    summary = f"<summary>{stopped}How this answer came about</summary>"
    return f'<details class="trace">{summary}<dl>{shown}</dl></details>'


def _said(label: str, value: str) -> str:
    if label == "Time":  # each part is a text of the page
        return f"<dd>{', '.join(f'<span>{escape(part)}</span>' for part in value.split(', '))}</dd>"
    kept = "" if label in WORDED or value == "off" else ' translate="no"'
    return f"<dd{kept}>{escape(value)}</dd>"


def _notes(exchange: Exchange, answer: Answer, last: bool) -> list[str]:
    """What the person should know without opening the trace."""
    notes = []
    if doubt := certainty_note(answer):
        notes.append(escape(doubt))
    if answer.left_out == 1:
        notes.append("The oldest turn no longer fits and was left out.")
    if answer.left_out > 1:
        notes.append(f"The {answer.left_out} oldest turns no longer fit and were left out.")
    if answer.set_aside and exchange.pictures:  # said once, where it begins
        notes.append("This model knows one picture at a time: what was said before the latest was set aside.")
    if exchange.is_cut:
        more = _button("go_on", "Continue") if last and not is_joined(answer.text) else ""
        limit = "The answer was cut off at the length limit in Settings."
        notes.append(f"{limit if answer.stage == 'done' else 'The answer was stopped.'} {more}")
    return notes


def _follow_ups(conversation: Conversation) -> str:
    """Questions that one click asks, under the last answer about a picture."""
    answer = conversation.exchanges[-1].answer or Answer()
    if answer.route != "image" or answer.stage != "done":
        return ""
    asked = {each.asked for each in since_pictures(conversation.exchanges)}
    several = len(latest_pictures(conversation.exchanges)) > 1
    offered = FOLLOW_UPS_OF_SEVERAL if several else FOLLOW_UPS
    new = [
        words
        for words, key in offered.items()
        if asked.isdisjoint(in_all_languages(words))
        and not re.search(rf"\b(?:{key})\b", " ".join(asked), re.IGNORECASE)
    ]
    buttons = "".join(_button("suggested", escape(words)) for words in new[:SUGGESTED])
    return f'<div class="follow-ups">{buttons}</div>'


def editing_notice(number: int, typed: bool = True) -> str:
    """Above the composer, while an earlier question stands in it or is to be spoken again."""
    how = f"Editing question {number + 1}." if typed else f"Press Speak and say question {number + 1} again."
    cancel = _button("leave", "Cancel")
    return f'<p class="notice">{how} What was said stays: turn back to it with ‹. {cancel}</p>'
