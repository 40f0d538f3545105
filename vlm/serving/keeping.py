"""What the list of conversations and the buttons beside a question ask for: open, start over, turn back, edit."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import gradio as gr

from vlm.chat.conversation import NOTHING, Composed, Conversation
from vlm.chat.records import from_record
from vlm.errors import UserError
from vlm.inputs.audio import is_recording
from vlm.inputs.images import open_image
from vlm.serving.browser_copy import recover
from vlm.serving.questions import Questions
from vlm.serving.received import received


class Keeping:
    """The handlers; they return what `Questions.page` does."""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions

    def open(self, conversation: Conversation, composed: Composed | None, chosen: gr.EventData) -> list[Any]:
        """The record that the browser has, with its pictures uploaded anew."""
        opened = from_record(chosen.record, _readable_files())
        asked = opened.exchanges[-1] if opened.exchanges else None
        # The page may have been left before there was an answer
        unanswered = opened.settle() if asked and not asked.text else None
        draft = _draft(conversation, chosen)
        conversation.take_over(opened)
        back = self.questions.put_back(unanswered, composed if draft is None else draft)
        return self.questions.page(conversation, back or draft)

    def start_over(self, conversation: Conversation, chosen: gr.EventData) -> list[Any]:
        draft = _draft(conversation, chosen)
        conversation.clear()
        return self.questions.page(conversation, draft)

    def turn(self, conversation: Conversation, copy: str | None, chosen: gr.EventData) -> list[Any]:
        recover(conversation, copy)
        edited = conversation.editing is not None
        conversation.turn(int(chosen.at), int(chosen.step))
        return self.questions.page(conversation, conversation.take_unsent() if edited else None)

    def edit(
        self, conversation: Conversation, composed: Composed | None, copy: str | None, chosen: gr.EventData
    ) -> list[Any]:
        """The question stands in the composer, to be asked in other words."""
        recover(conversation, copy)
        conversation.check_idle()
        number = int(chosen.at)
        if not 0 <= number < len(conversation.exchanges):
            raise UserError("This question is no longer here.")
        conversation.edit(number, composed or NOTHING)
        asked = conversation.exchanges[number]
        if (
            not self.questions.tab.typed
        ):  # it is said again; in the box, which is not shown, the words would be asked as well
            return self.questions.page(conversation, NOTHING)
        words = replace(asked, question=asked.asked, recording=None, pictures=asked.present_pictures)
        return self.questions.page(conversation, words.composed_before(NOTHING))

    def leave_as_it_was(self, conversation: Conversation, copy: str | None) -> list[Any]:
        recover(conversation, copy)
        conversation.editing = None
        return self.questions.page(conversation, conversation.take_unsent())


def _readable_files() -> Callable[[str], str | None]:
    """Path -> a file that arrived; None if it is lost, or neither a picture nor a recording. Each is opened once, however
    often a record names it."""
    opens = cache(_opens)

    def readable(path: str) -> str | None:
        found = received(path)
        return found if found and opens(os.path.realpath(found)) else None

    return readable


def _opens(file: str) -> bool:
    if not is_recording(file):
        try:
            open_image(file)
        except UserError:
            return False
    return True


def _draft(conversation: Conversation, chosen: gr.EventData) -> Composed | None:
    """What the box is to hold: what was being written there, before an edit or beside a question under way. None: what it
    holds, which may have grown since."""
    if conversation.editing is not None:
        return conversation.take_unsent()
    typed = getattr(chosen, "draft", None)
    return None if typed is None else {"text": str(typed), "files": []}
