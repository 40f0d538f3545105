"""The browser's copy of a conversation, which it gets whenever the conversation changes and keeps (assets/page/keeping.js).

A restart of the server, or a session that it forgot, leaves an open page with an empty conversation here: the copy that
comes with the next question fills it again.
"""

import json

from vlm.chat.conversation import Conversation
from vlm.chat.records import UNREADABLE, from_record, to_record
from vlm.errors import UserError
from vlm.serving.body import MAX_VALUES, ValueCount
from vlm.serving.markdown import to_words
from vlm.serving.received import received


def copy_of(conversation: Conversation, growing: bool = False) -> str:
    """With the words of each answer that is shown, as they are read aloud. `growing`: for a reload in the middle of an
    answer; nothing else that the page does waits for it."""
    words = [to_words(each.answer.text) if each.answer else "" for each in conversation.exchanges]
    state = {"busy": conversation.busy, "growing": growing, "unheard": conversation.unheard}
    return json.dumps({**state, "record": to_record(conversation), "words": words})


def recover(conversation: Conversation, copy: str | None) -> None:
    """Fill an empty conversation from the browser's copy, if there is something in it. One that was cleared stays empty: a
    quick question comes with the copy from before."""
    if conversation.exchanges or conversation.busy or conversation.cleared or not copy:
        return
    values = ValueCount()
    # Within the request it was a text, whose values did not count
    values.add(copy.encode("utf-8", "surrogatepass"))
    if values.total > MAX_VALUES:
        raise UserError(UNREADABLE)
    record = json.loads(copy).get("record") or {}
    if record.get("exchanges"):
        conversation.take_over(from_record(record, received))
        conversation.settle()  # a restart in mid-answer left a question without words
