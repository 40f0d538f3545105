"""What happens on a conversation tab: a question is taken down, it stands in the chat, it is answered.

Conversations are kept on the server, one per session and tab, and the browser only shows them. So no trace can slip into
a prompt, and no message that a browser sends back is trusted.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from vlm.chat.conversation import NOTHING, Composed, Conversation, Exchange, composed_exchange, to_markdown
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.serving.messages import Message, messages, numbered_messages, typed
from vlm.serving.plain_errors import plain_sentence
from vlm.serving.settings_panel import settings_from
from vlm.serving.switch import Serving
from vlm.serving.tabs import Tab

REFRESH_SECONDS = 0.1  # while an answer grows: redrawing the page at every token would slow the model down
BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}


class Questions:
    """The handlers of one tab's events. What they return goes to the chat, the composer and the stop button."""

    def __init__(self, serving: Serving, tab: Tab, temporary_files: set[str]) -> None:
        self.serving, self.tab = serving, tab
        self.temporary_files = temporary_files  # Gradio deletes these when their time is up

    # A question is taken down. These have no outputs, so that a refusal leaves the page as it was.

    def ask(
        self, conversation: Conversation, composed: Composed | None, recording: str | None, *settings: Any
    ) -> None:
        self._take_down(conversation, composed_exchange(composed or NOTHING, recording), settings)

    def ask_example(self, conversation: Conversation, chosen: gr.SelectData, *settings: Any) -> None:
        self._take_down(conversation, self.tab.examples[chosen.index], settings)

    def ask_again(self, conversation: Conversation, *settings: Any) -> None:
        last = len(conversation.exchanges) - 1
        self._take_down(conversation, replace(conversation.exchanges[last], answer=None), settings, at=last)

    def ask_edited(self, conversation: Conversation, edit: gr.EditData, *settings: Any) -> None:
        number, _ = numbered_messages(conversation)[int(edit.index)]  # type: ignore[arg-type]
        edited = Exchange(typed(str(edit.value)), conversation.exchanges[number].pictures)
        self._take_down(conversation, edited, settings, at=number)

    def _take_down(
        self, conversation: Conversation, exchange: Exchange, settings: tuple[Any, ...], at: int | None = None
    ) -> None:
        conversation.check_idle()
        if not exchange.question.strip() and not exchange.recording:
            raise UserError("Please type or speak a question.")
        if exchange.pictures and not self.tab.pictures:
            raise UserError("Questions about pictures go on the Image tab.")
        if self.tab.pictures and not any(each.pictures for each in [*conversation.exchanges[:at], exchange]):
            raise UserError("Please add a picture first: upload, paste or drop one, or use the camera.")
        pictures = tuple(map(self._presentable, exchange.pictures))
        conversation.begin(replace(exchange, pictures=pictures, settings=settings_from(*settings)), at)

    def _presentable(self, path: str) -> str:
        """The path of a file that browsers can show: few of them know TIFF. UserError if it is no picture."""
        picture = open_image(path)
        if Path(path).suffix.lower() in BROWSERS_SHOW:
            return path
        converted = save_pil_to_cache(picture, str(Path(path).parent), Path(path).stem, "png")
        self.temporary_files.add(converted)
        return converted

    # It is answered.

    def answer(self, conversation: Conversation) -> Iterator[list[Message]]:
        """The chat as its last answer grows. Gradio closes it on Stop and Clear, and when the browser goes away."""
        exchange = conversation.to_answer()
        if exchange is None:
            return  # it was stopped while it waited in the queue
        asked = (exchange.question, exchange.pictures, exchange.recording, conversation.history())
        drawn_stage, drawn_at = "", 0.0
        try:
            with closing(self.serving.stream(*asked, exchange.settings)) as snapshots:
                for snapshot in snapshots:
                    grown = conversation.grow(exchange, snapshot)
                    if grown is None:
                        return
                    exchange = grown
                    if snapshot.stage != drawn_stage or time.monotonic() - drawn_at > REFRESH_SECONDS:
                        yield messages(conversation)
                        drawn_stage, drawn_at = snapshot.stage, time.monotonic()
        except Exception as problem:
            gr.Warning(plain_sentence(problem))
        conversation.finish(exchange)

    # The page follows.

    def show(self, conversation: Conversation) -> list[Any]:
        """The question stands in the chat, and the composer and the recorder are empty."""
        return [*self._page(conversation, NOTHING), None]

    def settle(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        return self._page(conversation, self._put_back(conversation.settle(), composed))

    def settle_finished(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        return self.settle(conversation, composed) if conversation.finished else self._page(conversation)

    def undo(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        conversation.check_idle()
        return self._page(conversation, self._put_back(conversation.exchanges.pop(), composed))

    def clear(self, conversation: Conversation) -> list[Any]:
        conversation.clear()
        return self._page(conversation)

    def _put_back(self, exchange: Exchange | None, composed: Composed | None) -> Composed | None:
        """A question that got no answer or was undone returns to the composer, before what stands there now."""
        if exchange is None or not self.tab.typed:
            return None
        return exchange.composed_before(composed or NOTHING)

    def _page(self, conversation: Conversation, composed: Composed | None = None) -> list[Any]:
        busy = conversation.busy
        question: dict[str, Any] = {"submit_btn": not busy, "stop_btn": "Stop" if busy else False}
        if composed is not None:
            question["value"] = composed
        return [messages(conversation), gr.update(**question), gr.update(interactive=busy)]

    def add_photo(self, photo: str | None, composed: Composed | None) -> tuple[None, Composed]:
        composed = composed or NOTHING
        return None, composed | {"files": [*composed["files"], *([photo] if photo else [])]}

    def write(self, conversation: Conversation) -> str:
        return to_markdown(conversation.exchanges)
