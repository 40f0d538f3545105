"""One tab: a conversation that streams and can be stopped, retried, undone, edited, cleared and downloaded.

In: an assistant and the `Kind` of tab. Out: Gradio components with their events. The conversation is kept on the
server, per session, and the browser only shows it: a trace cannot slip into a prompt, and no message that a
browser sends back is trusted. Every question takes the same three steps: it is taken down, it stands in the
chat, it is answered.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from page.conversation import NOTHING, Composed, Conversation, Exchange, composed_exchange, to_markdown
from page.messages import Message, messages, numbered_messages, typed
from page.notices import plain_sentence, plainly
from vlm import Assistant, Settings, UserError
from vlm.images import open_image

REFRESH_SECONDS = 0.1  # while an answer grows: redrawing the page at every token would slow the model down
BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}

# The events that use the model share one place before it; all others answer at once. Those that may refuse are
# queued nevertheless, without a limit: only then does Gradio show the message of an error.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
MAY_REFUSE: dict[str, Any] = AT_ONCE | {"queue": True, "concurrency_limit": None}

DOWNLOAD = """text => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/markdown"}));
    link.download = "conversation.md";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


@dataclass(frozen=True)
class Kind:
    """What sets one tab apart from the others."""

    name: str
    invitation: str
    typed: bool = True
    pictures: bool = False
    examples: tuple[Exchange, ...] = ()


class ConversationTab:
    """The components of one tab and what happens in it. To be made inside `gr.Blocks`."""

    def __init__(self, assistant: Assistant, kind: Kind, settings: list[Any]) -> None:
        self.assistant, self.kind, self.settings = assistant, kind, settings
        self.conversation = gr.State(Conversation())
        self.chat = gr.Chatbot(
            label=f"{kind.name} conversation",
            show_label=False,
            elem_classes="conversation",
            height="max(20rem, 100dvh - 25rem)",
            render_markdown=False,
            latex_delimiters=[],
            editable="user",
            group_consecutive_messages=False,  # or editing a question that came with a picture fails
            buttons=["copy"],
            placeholder=kind.invitation,
            examples=[{"text": each.caption, "files": each.files} for each in kind.examples],  # type: ignore[typeddict-item]
        )
        self._build_composer()
        with gr.Row(elem_classes="toolbar"):
            self.stop = gr.Button("Stop answering", size="sm", interactive=False, visible=not kind.typed)
            self.download = gr.Button("Download conversation", size="sm")
        self.downloaded = gr.Textbox(visible=False)
        self._wire_questions()
        self._wire_tools()

    def _build_composer(self) -> None:
        self.question = gr.MultimodalTextbox(
            label="Question",
            show_label=False,
            placeholder=self.kind.invitation,
            visible=self.kind.typed,
            sources=["upload", "microphone"] if self.kind.pictures else [],
            file_types=["image", "audio"],
            file_count="multiple",
            max_plain_text_length=10**9,  # pasted text stays text, however long
        )
        self.recording = gr.Audio(
            label="Spoken question",
            visible=not self.kind.typed,
            sources=["microphone", "upload"],
            type="filepath",
            editable=False,
            buttons=[],
        )
        if self.kind.pictures:
            with gr.Accordion("Camera", open=False):
                photo = gr.Image(label="Camera", show_label=False, sources=["webcam"], type="filepath")
            photo.input(self.add_photo, [photo, self.question], [photo, self.question], **AT_ONCE)

    def _wire_questions(self) -> None:
        conversation, composed = self.conversation, [self.question, self.recording]
        page = [self.chat, self.question, self.stop]
        spoken = [self.recording.stop_recording, self.recording.upload]
        taken = [
            gr.on(
                [self.question.submit] if self.kind.typed else spoken,
                plainly(self.ask),
                [conversation, *composed],
                **MAY_REFUSE,
            ),
            self.chat.example_select(plainly(self.ask_example), conversation, **MAY_REFUSE),
            self.chat.retry(plainly(self.ask_again), conversation, **MAY_REFUSE),
            self.chat.edit(plainly(self.ask_edited), conversation, **MAY_REFUSE),
        ]
        shown = [each.success(self.show, conversation, [*page, self.recording], **AT_ONCE) for each in taken]
        answers = [
            each.success(
                self.answer, [conversation, *self.settings], self.chat, api_visibility="private", **MODEL
            )
            for each in shown
        ]
        stops = gr.on([self.stop.click, self.question.stop], None, cancels=answers, api_visibility="private")
        for each in [*answers, stops]:
            each.then(self.settle, [conversation, self.question], page, **AT_ONCE)
        clears = self.chat.clear(None, cancels=answers, api_visibility="private")
        clears.then(self.clear, conversation, page, **AT_ONCE)
        self.chat.undo(plainly(self.undo), [conversation, self.question], page, **MAY_REFUSE)

    def _wire_tools(self) -> None:
        written = self.download.click(self.write, self.conversation, self.downloaded, **AT_ONCE)
        written.then(None, self.downloaded, js=DOWNLOAD, **AT_ONCE)

    # A question is taken down. These have no outputs, so that a refusal leaves the page as it was.

    def ask(self, conversation: Conversation, composed: Composed | None, recording: str | None) -> None:
        self._take_down(conversation, composed_exchange(composed or NOTHING, recording))

    def ask_example(self, conversation: Conversation, chosen: gr.SelectData) -> None:
        self._take_down(conversation, self.kind.examples[chosen.index])

    def ask_again(self, conversation: Conversation) -> None:
        last = len(conversation.exchanges) - 1
        conversation.begin(replace(conversation.exchanges[last], answer=None), at=last)

    def ask_edited(self, conversation: Conversation, edit: gr.EditData) -> None:
        number, _ = numbered_messages(conversation)[int(edit.index)]  # type: ignore[arg-type]
        edited = Exchange(typed(str(edit.value)), conversation.exchanges[number].pictures)
        self._take_down(conversation, edited, at=number)

    def _take_down(self, conversation: Conversation, exchange: Exchange, at: int | None = None) -> None:
        conversation.check_idle()
        if not exchange.question.strip() and not exchange.recording:
            raise UserError("Please type or speak a question.")
        if exchange.pictures and not self.kind.pictures:
            raise UserError("Questions about pictures go on the Image tab.")
        if self.kind.pictures and not any(each.pictures for each in [*conversation.exchanges[:at], exchange]):
            raise UserError("Please add a picture first: upload, paste or drop one, or use the camera.")
        conversation.begin(replace(exchange, pictures=tuple(map(self._presentable, exchange.pictures))), at)

    def _presentable(self, path: str) -> str:
        """A readable picture, or UserError, as a file that browsers can show: few of them know TIFF."""
        picture = open_image(path)
        if Path(path).suffix.lower() in BROWSERS_SHOW:
            return path
        converted = save_pil_to_cache(picture, str(Path(path).parent), Path(path).stem, "png")
        self.chat.temp_files.add(converted)  # deleted when its time is up, like the upload
        return converted

    # It is answered.

    def answer(self, conversation: Conversation, *settings: Any) -> Iterator[list[Message]]:
        """The chat as its last answer grows. Gradio closes it on Stop and Clear, and when the browser goes away."""
        try:
            yield from self._grow(conversation, settings_from(*settings))
        except Exception as problem:
            gr.Warning(plain_sentence(problem))

    def _grow(self, conversation: Conversation, settings: Settings) -> Iterator[list[Message]]:
        asked = conversation.exchanges[-1]
        drawn_stage, drawn_at = "", 0.0
        history = conversation.history()
        stream = self.assistant.stream(asked.question, asked.pictures, asked.recording, history, settings)
        with closing(stream) as snapshots:  # type: ignore[type-var]
            for snapshot in snapshots:
                conversation.exchanges[-1] = replace(asked, answer=snapshot)
                if snapshot.stage != drawn_stage or time.monotonic() - drawn_at > REFRESH_SECONDS:
                    yield messages(conversation)
                    drawn_stage, drawn_at = snapshot.stage, time.monotonic()

    # The page follows.

    def show(self, conversation: Conversation) -> list[Any]:
        """The question stands in the chat, and the composer is empty."""
        return [*self._page(conversation, NOTHING), None]

    def settle(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        return self._page(conversation, self._put_back(conversation.settle(), composed))

    def undo(self, conversation: Conversation, composed: Composed | None) -> list[Any]:
        conversation.check_idle()
        return self._page(conversation, self._put_back(conversation.exchanges.pop(), composed))

    def clear(self, conversation: Conversation) -> list[Any]:
        conversation.clear()
        return self._page(conversation)

    def _put_back(self, exchange: Exchange | None, composed: Composed | None) -> Composed | None:
        """What was asked in vain or undone returns to the composer, before what has been put there since."""
        if exchange is None or not self.kind.typed:
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


def settings_from(max_new_tokens: float, temperature: float, clean_up: bool, style: Any) -> Settings:
    return Settings(int(max_new_tokens), float(temperature), clean_up, style)
