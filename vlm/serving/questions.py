"""What happens on a conversation tab: a question is taken down, it stands in the chat, it is answered.

Conversations are kept on the server, one per session and tab; the browser shows them and keeps a copy
(vlm/serving/browser_copy.py), from which an empty one is restored. So no trace can slip into a prompt, and no file that a
browser names is trusted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from vlm.chat.answer import LARGEST_SEED, Answer, Settings
from vlm.chat.conversation import NOTHING, Composed, Conversation, Exchange, composed_exchange
from vlm.chat.records import check_room
from vlm.chat.reply import MAX_PICTURES
from vlm.errors import UserError
from vlm.serving.browser_copy import copy_of, recover
from vlm.serving.messages import Message, editing_notice, messages
from vlm.serving.plain_errors import plain_sentence
from vlm.serving.received import received, shown_file
from vlm.serving.serving import Serving
from vlm.serving.settings_panel import settings_from
from vlm.serving.tabs import Tab
from vlm.serving.translations import translated

SPOKEN_STEM = "spoken"  # the name of a recording that assets/page/recording.js makes
REFRESH_SECONDS = 0.1  # while an answer grows: redrawing the page at every token would slow the model down
COPY_SECONDS = 2.0  # while an answer grows: the copy is the whole conversation
OTHER_TEMPERATURE = 0.7  # of another try where the temperature is 0, which would say the same again


class Questions:
    """The handlers of one tab's events. What they return goes to the chat, the composer, the stop button, the notice
    above the composer, and the browser's copy."""

    def __init__(self, serving: Serving, tab: Tab) -> None:
        self.serving, self.tab = serving, tab

    # A question is taken down. These have no outputs, so that a refusal leaves the page as it was, but for the notice.

    def refusing(self, ask: Callable[..., None]) -> Callable[..., None]:
        """`ask`, whose refusals reach the page as a plain sentence. It stays above the box when the message has gone."""

        @wraps(ask)
        def asking(conversation: Conversation, *arguments: Any) -> None:
            try:
                ask(conversation, *arguments)
            except Exception as problem:
                sentence = plain_sentence(problem)
                if not conversation.busy:
                    conversation.refused = sentence
                shown = conversation.refused != sentence  # or the notice above the box says it
                raise gr.Error(sentence, visible=shown, print_exception=False) from problem

        return asking

    def ask(
        self, conversation: Conversation, composed: Composed | None, copy: str | None, *settings: Any
    ) -> None:
        recover(conversation, copy)
        self._take_down(conversation, composed_exchange(composed or NOTHING), settings)
        self.serving.no_more_ahead(conversation)

    def ask_spoken(
        self,
        conversation: Conversation,
        composed: Composed | None,
        copy: str | None,
        spoken: gr.EventData,
        *settings: Any,
    ) -> None:
        recover(conversation, copy)
        recording = received(str(spoken.path))
        if recording is None:
            raise UserError("The recording did not arrive here. Please speak again.")
        written = _without_spoken(composed or NOTHING)
        self._take_down(conversation, composed_exchange(written, recording), settings)
        self.serving.no_more_ahead(conversation)

    def ask_suggested(
        self, conversation: Conversation, copy: str | None, chosen: gr.EventData, *settings: Any
    ) -> None:
        recover(conversation, copy)
        self._begin(conversation, Exchange(str(chosen.text)), settings_from(*settings), at=None)

    def ask_example(
        self, conversation: Conversation, request: gr.Request, chosen: gr.SelectData, *settings: Any
    ) -> None:
        """It is asked in the language that it is shown in."""
        example = self.tab.examples[chosen.index]
        words = translated(request.headers.get("accept-language", ""), example.question)
        self._take_down(conversation, replace(example, question=words), settings)

    def ask_again(self, conversation: Conversation, copy: str | None, *settings: Any) -> None:
        """The last question once more, with another draw."""
        recover(conversation, copy)
        last = len(conversation.exchanges) - 1
        if last < 0:
            raise UserError("There is no question here to ask again.")
        chosen, tries = settings_from(*settings), len(conversation.versions(last))
        temperature = chosen.temperature or OTHER_TEMPERATURE
        other = replace(chosen, seed=(chosen.seed + tries) % (LARGEST_SEED + 1), temperature=temperature)
        asked = conversation.exchanges[last]
        if not Path(asked.recording or "").is_file():  # its words were heard before it was deleted
            asked = replace(asked, question=asked.asked, recording=None)
        self._begin(conversation, replace(asked, answer=None, voted=None), other, at=last)

    def go_on(self, conversation: Conversation, copy: str | None) -> None:
        recover(conversation, copy)
        for last in conversation.exchanges[-1:]:
            _check_present(last)
        conversation.go_on()

    def _take_down(self, conversation: Conversation, exchange: Exchange, settings: tuple[Any, ...]) -> None:
        self._begin(conversation, exchange, settings_from(*settings), conversation.editing)

    def _begin(
        self, conversation: Conversation, exchange: Exchange, settings: Settings, at: int | None
    ) -> None:
        conversation.check_idle()
        if not exchange.question.strip() and not exchange.recording:
            raise UserError("Please type or speak a question.")
        if exchange.pictures and not self.tab.pictures:
            raise UserError("Questions about pictures go on the Image tab.")
        if self.tab.pictures and not any(each.pictures for each in [*conversation.exchanges[:at], exchange]):
            raise UserError("Please add a picture first: upload, paste or drop one, or use the camera.")
        if len(exchange.pictures) > MAX_PICTURES:
            raise UserError(f"At most {MAX_PICTURES} pictures can be asked about. Please take some out.")
        _check_present(exchange)
        check_room(conversation)
        pictures = tuple(map(shown_file, exchange.pictures))
        conversation.begin(replace(exchange, pictures=pictures, settings=settings), at)

    def read_ahead(self, conversation: Conversation, composed: Composed | None) -> None:
        """Pictures have come to the composer: they are looked at while their question is typed or spoken."""
        with suppress(UserError):  # whatever is in the way is said when the question comes
            if pictures := composed_exchange(composed or NOTHING).present_pictures:
                self.serving.read_ahead(
                    conversation, pictures, lambda: conversation.history_before(conversation.editing)
                )

    # It is answered.

    def answer(self, conversation: Conversation) -> Iterator[tuple[list[Message] | Any, Any]]:
        """The chat as its last answer grows, and every now and then the browser's copy, which a reload goes on from. Gradio
        closes it on Stop, and when the browser goes away."""
        yield gr.skip(), gr.skip()  # of an answer that ends before its first word Gradio would empty both
        exchange = conversation.to_answer()
        if exchange is None:
            return  # it was stopped while it waited in the queue
        drawn_stage, drawn_at, copied_at, refused = "", 0.0, time.monotonic(), ""
        try:
            with closing(self.serving.stream(*_asked(conversation, exchange))) as snapshots:
                for snapshot in snapshots:
                    grown = conversation.grow(exchange, _joined(exchange.begun, snapshot))
                    if grown is None:
                        return
                    exchange = grown
                    if snapshot.stage != drawn_stage or time.monotonic() - drawn_at > REFRESH_SECONDS:
                        drawn_stage, drawn_at, copy = snapshot.stage, time.monotonic(), gr.skip()
                        if snapshot.text and not exchange.begun and drawn_at - copied_at > COPY_SECONDS:
                            copied_at, copy = drawn_at, copy_of(conversation, growing=True)
                        yield messages(conversation, self.serving.feedback_notice), copy
        except Exception as problem:
            refused = plain_sentence(problem)
        conversation.finish(exchange, refused)

    # The page follows.

    def show(self, conversation: Conversation) -> list[Any]:
        """The question stands in the chat, and the composer is empty, but for what stood there before an edit."""
        return self.page(conversation, conversation.take_unsent())

    def show_beside(self, conversation: Conversation) -> list[Any]:
        """The question stands in the chat, and the composer holds what was being written."""
        unsent = conversation.take_unsent()
        return self.page(conversation, None if unsent == NOTHING else unsent)

    def settle(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        unanswered = conversation.settle()
        if unanswered and conversation.editing is not None:  # it is put back alone
            conversation.unsent, composed = composed or NOTHING, NOTHING
        return self.page(conversation, self.put_back(unanswered, composed))

    def settle_finished(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        return self.settle(conversation, composed) if conversation.finished else self.page(conversation)

    def put_back(self, exchange: Exchange | None, composed: Composed | None) -> Composed | None:
        """A question that got no answer returns to the composer, before what stands there now."""
        if exchange is None or not self.tab.typed:
            return None
        # Of what was spoken by the Speak button the words come back, not a file, once they are known
        if Path(exchange.recording or "").stem == SPOKEN_STEM and _is_heard(exchange):
            exchange = replace(exchange, question=exchange.asked, recording=None)
        return exchange.composed_before(composed or NOTHING)

    def page(self, conversation: Conversation, composed: Composed | None = None) -> list[Any]:
        busy = conversation.busy
        question: dict[str, Any] = {"submit_btn": not busy, "stop_btn": "Stop" if busy else False}
        if composed is not None:
            question["value"] = composed
        stop = gr.update(interactive=busy, visible=busy and not self.tab.typed)
        shown = messages(conversation, self.serving.feedback_notice)
        return [shown, gr.update(**question), stop, self.notice(conversation), copy_of(conversation)]

    def notice(self, conversation: Conversation) -> dict[str, Any]:
        """Above the composer: which question is edited, or why the last one was refused."""
        refused = f'<p class="notice" role="alert">{conversation.refused}</p>' if conversation.refused else ""
        editing = conversation.editing
        shown = refused if editing is None else refused + editing_notice(editing, self.tab.typed)
        return gr.update(value=shown, visible=bool(shown))

    def add_photo(
        self, photo: str | None, composed: Composed | None
    ) -> tuple[dict[str, Any], bool, Composed]:
        """-> the camera, closed, whether it is shown, composer"""
        composed = composed or NOTHING
        files = [*composed["files"], *([photo] if photo else [])]
        return gr.update(value=None, visible=False), False, composed | {"files": files}


def _without_spoken(composed: Composed) -> Composed:
    """What was spoken and came back to the box unheard gives way to what is spoken now."""
    return composed | {"files": [path for path in composed["files"] if Path(path).stem != SPOKEN_STEM]}


def _check_present(exchange: Exchange) -> None:
    """Raise UserError where a picture of the question is gone: it would be answered without it, or about another."""
    if exchange.present_pictures != exchange.pictures:
        raise UserError("A picture of this question is no longer here. Please add it again.")


def _asked(conversation: Conversation, exchange: Exchange) -> tuple[Any, ...]:
    """The arguments of `Serving.stream`."""
    pictures, history = exchange.present_pictures, conversation.history()
    if exchange.begun is None:
        return exchange.question, pictures, exchange.recording, history, exchange.settings
    begun = exchange.begun.draft or exchange.begun.text
    return exchange.asked, pictures, None, history, exchange.settings, begun


def _is_heard(exchange: Exchange) -> bool:
    """Whether it is known what its recording says, be it nothing."""
    return exchange.answer is not None and exchange.answer.transcript is not None


def _joined(begun: Answer | None, answer: Answer) -> Answer:
    """While a cut answer goes on, what there was of it stays on the page."""
    if begun is None:
        return answer
    return replace(answer, text=answer.text or begun.text, transcript=begun.transcript)
