"""A thumb under an answer: it is kept in the folder that FEEDBACK names, and a visitor can take it back.

Off unless whoever runs the page names a folder. assets/page/voting.js sends what was pressed.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from vlm.chat.answer import Answer
from vlm.chat.conversation import Conversation, Exchange, Voted, latest_pictures
from vlm.chat.feedback import FeedbackFolder, feedback_on
from vlm.errors import UserError
from vlm.serving.browser_copy import copy_of, recover
from vlm.serving.messages import messages
from vlm.serving.serving import Serving


class Voting:
    """The handler; what it returns goes to the chat and to the browser's copy."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self._one_by_one = Lock()  # a double click would keep two votes, of which one is forgotten

    def vote(self, conversation: Conversation, copy: str | None, chosen: gr.EventData) -> list[Any]:
        """`thumb` is up, down, or "" to take the vote back."""
        recover(conversation, copy)
        number, thumb, right_answer = int(chosen.at), str(chosen.thumb), str(chosen.right_answer)
        folder = self.serving.feedback
        if folder is None:
            raise UserError("Nothing is kept of answers here.")
        with self._one_by_one:
            exchange = _answered(conversation, number)
            picture = _picture(conversation.exchanges[: number + 1])
            voted = self._keep(folder, exchange, picture, thumb, right_answer) if thumb else None
            # Only once the new one is kept, or a full disk would lose both. Another conversation may be open by then
            old = exchange.voted if conversation.vote(exchange, voted) else voted
            if old:
                folder.take_back(old.key)
        return [messages(conversation, self.serving.feedback_notice), copy_of(conversation)]

    def _keep(
        self, folder: FeedbackFolder, exchange: Exchange, picture: str | None, thumb: str, right_answer: str
    ) -> Voted:
        self.serving.allowance.take_vote()
        answer = exchange.answer or Answer()
        preset = answer.preset or self.serving.model.preset  # of an answer from before it was kept
        adapter = answer.adapter or ""
        vote = feedback_on(
            exchange.asked, exchange.text, right_answer, thumb, picture, preset[:500], adapter[:500]
        )
        return Voted(vote.thumb, folder.keep(vote))


def _answered(conversation: Conversation, number: int) -> Exchange:
    growing = conversation.busy and number == len(conversation.exchanges) - 1
    if not 0 <= number < len(conversation.exchanges) or growing or not conversation.exchanges[number].text:
        raise UserError("There is no finished answer here to vote on.")
    return conversation.exchanges[number]


def _picture(asked: Sequence[Exchange]) -> str | None:
    """The one picture that the last answer is about; None where it is about none, or about several at once."""
    answer = asked[-1].answer
    if not answer or answer.route != "image":
        return None
    latest = latest_pictures(asked)
    return latest[0] if len(latest) == 1 and Path(latest[0]).is_file() else None
