"""One tab of the page: a conversation that streams, stops, is retried, undone, edited, cleared and downloaded.

In: an `Assistant` and the `Kind` of tab. Out: Gradio components with their events. The conversation itself is kept on the
server, per tab and session, and the page only shows it: a trace cannot slip into a prompt, and nothing that a browser sends
back is trusted. Unusual: messages are plain text, see `literal`.
"""

import logging
import mimetypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from vlm import Answer, Assistant, Settings, UserError
from vlm.conversation import Conversation, Exchange, to_markdown, trace_of
from vlm.images import open_image

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 0.1  # of the page while an answer grows: redrawing at every token would slow the model down
BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}
WORD_JOINER = "\u2060"  # invisible
STAGES = {
    "transcribing": "Listening to the recording…",
    "looking": "Looking at the picture…",
    "drafting": "Writing…",
    "cleaning": "Checking the wording…",
}
UNEXPECTED = "Something went wrong here and was noted in the log. Please try again."

# The events that use the model share one place before it; all others answer at once. Those that may refuse are queued
# nevertheless: Gradio shows the message of an error only then.
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


def literal(text: str) -> str:
    """Text that the page shows as it is. The chat takes `<b>` and `&lt;` for markup even where Markdown is off; an
    invisible character after the sign prevents it and, unlike an entity, does not show where a question is edited."""
    return text.replace("<", f"<{WORD_JOINER}").replace("&", f"&{WORD_JOINER}")


def trace_html(answer: Answer, running: bool) -> str:
    if running:
        return f'<p class="stage">{STAGES.get(answer.stage, "")}</p>'
    stopped = "" if answer.stage == "done" else "Stopped early. "
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in trace_of(answer))
    return f'<details class="trace"><summary>{stopped}How this answer came about</summary><dl>{rows}</dl></details>'


def pictures_html(paths: Sequence[str]) -> str:
    images = (
        f'<img src="gradio_api/file={quote(path)}" alt="Picture {escape(Path(path).name)}">' for path in paths
    )
    return f'<div class="pictures">{"".join(images)}</div>'


def message(role: str, *, text: str | None = None, html: str = "") -> dict[str, Any]:
    """One message. A dict for the HTML: a `gr.HTML` for each, at each redrawing, would take a hundred times as long."""
    if text is not None:
        content = {"type": "text", "text": literal(text)}
    else:
        content = {"type": "component", "component": "html", "value": html, "constructor_args": {}, "props": {}}
    return {"role": role, "content": [content]}


def messages_of(exchange: Exchange, running: bool) -> list[dict[str, Any]]:
    """Pictures and question and, from the first sign of an answer on, a trace and the answer."""
    messages = [message("user", html=pictures_html(exchange.pictures))] if exchange.pictures else []
    messages.append(message("user", text=exchange.asked or "Spoken question…"))
    if exchange.answer:
        messages.append(message("assistant", html=trace_html(exchange.answer, running)))
    if exchange.text:
        messages.append(message("assistant", text=exchange.text))
    return messages


def numbered_messages(conversation: Conversation) -> list[tuple[int, dict[str, Any]]]:
    """Every message with the number of its exchange."""
    last = len(conversation.exchanges) - 1
    return [
        (number, message)
        for number, exchange in enumerate(conversation.exchanges)
        for message in messages_of(exchange, running=conversation.busy and number == last)
    ]


def shown(conversation: Conversation) -> list[dict[str, Any]]:
    return [message for _, message in numbered_messages(conversation)]


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Errors become one plain sentence on the page; what nobody foresaw is logged in full."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError as problem:
            raise gr.Error(as_notice(problem), title="Please check", print_exception=False) from problem
        except Exception as problem:
            logger.exception("Unexpected error in %s", function.__name__)
            raise gr.Error(UNEXPECTED, print_exception=False) from problem

    return guarded


def as_notice(problem: UserError) -> str:
    return escape(str(problem), quote=False)  # notices are HTML, and a message can hold the name of a file


def is_recording(path: str) -> bool:
    return (mimetypes.guess_type(path)[0] or "").startswith("audio/")


class ConversationTab:
    """The components of one tab and what happens in it. Built inside `gr.Blocks`."""

    def __init__(self, assistant: Assistant, kind: Kind, settings: list[Any]) -> None:
        self.assistant, self.kind, self.settings = assistant, kind, settings
        self.conversation = gr.State(Conversation())
        self.chat = gr.Chatbot(
            label=f"{kind.name} conversation",
            show_label=False,
            elem_classes="conversation",
            height="max(20rem, calc(100dvh - 26rem))",
            render_markdown=False,
            latex_delimiters=[],
            editable="user",
            group_consecutive_messages=False,  # or an edit of a question with a picture would fail
            buttons=["copy"],
            placeholder=kind.invitation,
            examples=[self._example_card(example) for example in kind.examples],
        )
        self._build_composer()
        with gr.Row(elem_classes="toolbar"):
            self.stop = gr.Button("Stop answering", size="sm", interactive=False, visible=not kind.typed)
            self.export = gr.Button("Download conversation", size="sm")
        self.exported = gr.Textbox(visible=False)
        self._wire()

    @staticmethod
    def _example_card(example: Exchange) -> Any:
        shown = example.question or Path(example.recording or "").stem.replace("-", " ").capitalize()
        return {"text": shown, "files": example.files}

    def _build_composer(self) -> None:
        kind = self.kind
        self.question = gr.MultimodalTextbox(
            label="Question",
            show_label=False,
            placeholder=kind.invitation,
            visible=kind.typed,
            sources=["upload", "microphone"] if kind.pictures else [],
            file_types=["image", "audio"],
            file_count="multiple",
            max_plain_text_length=10**9,  # pasted text is text, never a file
            stop_btn=False,
        )
        self.recording = gr.Audio(
            label="Spoken question",
            sources=["microphone", "upload"],
            type="filepath",
            visible=not kind.typed,
            editable=False,
            buttons=[],
        )
        if kind.pictures:
            with gr.Accordion("Camera", open=False):
                photo = gr.Image(label="Camera", sources=["webcam"], type="filepath", show_label=False)
            photo.input(self.add_photo, [photo, self.question], [photo, self.question], **AT_ONCE)

    def _wire(self) -> None:
        asked = [self.question, self.recording, self.conversation]
        sent = [self.question.submit] if self.kind.typed else [self.recording.stop_recording, self.recording.upload]
        starts = [
            gr.on(sent, plainly(self.ask), asked, **MAY_REFUSE),
            self.chat.example_select(plainly(self.ask_example), self.conversation, **MAY_REFUSE),
            self.chat.retry(plainly(self.ask_again), self.conversation, **MAY_REFUSE),
            self.chat.edit(plainly(self.ask_edited), self.conversation, **MAY_REFUSE),
        ]
        page = [self.chat, self.question, self.stop]
        answers = [
            start.success(self.show, self.conversation, [*page, self.recording], **AT_ONCE).success(
                self.answer, [self.conversation, *self.settings], self.chat, api_visibility="private", **MODEL
            )
            for start in starts
        ]
        typed = [self.conversation, self.question]
        for answer in answers:
            answer.then(self.settle, typed, page, **AT_ONCE)
        stops = gr.on([self.stop.click, self.question.stop], None, cancels=answers, api_visibility="private")
        stops.then(self.settle, typed, page, **AT_ONCE)
        clears = self.chat.clear(None, cancels=answers, api_visibility="private")
        clears.then(self.clear, self.conversation, page, **AT_ONCE)
        self.chat.undo(plainly(self.undo), typed, page, **MAY_REFUSE)
        self.export.click(self.to_file, self.conversation, self.exported, **AT_ONCE).then(
            None, self.exported, js=DOWNLOAD, **AT_ONCE
        )

    # ---- a question is taken down: no outputs, so that an error leaves the page as it was

    def ask(self, typed: dict[str, Any] | None, recording: str | None, conversation: Conversation) -> None:
        typed = typed or {"text": "", "files": []}
        recordings = [path for path in typed["files"] if is_recording(path)] + ([recording] if recording else [])
        pictures = [path for path in typed["files"] if not is_recording(path)]
        if len(recordings) > 1:
            raise UserError("Please send one recording at a time.")
        self._begin(conversation, Exchange(typed["text"], tuple(pictures), recordings[0] if recordings else None))

    def ask_example(self, conversation: Conversation, chosen: gr.SelectData) -> None:
        self._begin(conversation, self.kind.examples[chosen.index])

    def ask_again(self, conversation: Conversation) -> None:
        last = len(conversation.exchanges) - 1
        conversation.begin(replace(conversation.exchanges[last], answer=None), at=last)

    def ask_edited(self, conversation: Conversation, edit: gr.EditData) -> None:
        number, _ = numbered_messages(conversation)[edit.index]
        text = str(edit.value).replace(WORD_JOINER, "")
        self._begin(conversation, Exchange(text, conversation.exchanges[number].pictures), at=number)

    def _begin(self, conversation: Conversation, exchange: Exchange, at: int | None = None) -> None:
        conversation.check_idle()
        if not exchange.question.strip() and not exchange.recording:
            raise UserError("Please type or speak a question.")
        if exchange.pictures and not self.kind.pictures:
            raise UserError("Questions about pictures go on the Image tab.")
        if self.kind.pictures and not any(each.pictures for each in [*conversation.exchanges[:at], exchange]):
            raise UserError("Please add a picture first: upload, paste or drop one, or use the camera.")
        conversation.begin(replace(exchange, pictures=tuple(map(self._presentable, exchange.pictures))), at)

    def _presentable(self, path: str) -> str:
        """A picture that can be read, or UserError, as a file that browsers can show: few of them know TIFF."""
        picture = open_image(path)
        if Path(path).suffix.lower() in BROWSERS_SHOW:
            return path
        shown = save_pil_to_cache(picture, str(Path(path).parent), Path(path).stem, "png")
        self.chat.temp_files.add(shown)  # deleted when its time is up, like the upload
        return shown

    # ---- it is answered

    def answer(self, conversation: Conversation, *settings: Any) -> Iterator[list[dict[str, Any]]]:
        """The conversation on the page as its last answer grows. Closed by Stop, Clear and a tab that goes away."""
        try:
            yield from self._grow(conversation, settings_from(*settings))
        except UserError as problem:
            gr.Warning(as_notice(problem), title="Please check")
        except Exception:
            logger.exception("Unexpected error in an answer")
            gr.Warning(UNEXPECTED, title="Error")

    def _grow(self, conversation: Conversation, settings: Settings) -> Iterator[list[dict[str, Any]]]:
        asked = conversation.exchanges[-1]
        shown_stage, shown_at = "", 0.0
        stream = self.assistant.stream(
            asked.question, asked.pictures, asked.recording, conversation.history(), settings
        )
        with closing(stream) as snapshots:  # type: ignore[type-var]
            for snapshot in snapshots:
                conversation.exchanges[-1] = replace(asked, answer=snapshot)
                if snapshot.stage != shown_stage or time.monotonic() - shown_at > REFRESH_SECONDS:
                    yield shown(conversation)
                    shown_stage, shown_at = snapshot.stage, time.monotonic()

    # ---- the page follows

    def show(self, conversation: Conversation) -> list[Any]:
        """A question has been taken down: it stands in the chat, and the composer is empty."""
        return [*self._page(conversation, {"text": "", "files": []}), None]

    def settle(self, conversation: Conversation, typed: dict[str, Any] | None) -> list[Any]:
        return self._page(conversation, self._put_back(conversation.settle(), typed))

    def clear(self, conversation: Conversation) -> list[Any]:
        conversation.exchanges.clear()
        conversation.busy = False
        return self._page(conversation)

    def undo(self, conversation: Conversation, typed: dict[str, Any] | None) -> list[Any]:
        conversation.check_idle()
        return self._page(conversation, self._put_back(conversation.exchanges.pop(), typed))

    def _put_back(self, exchange: Exchange | None, typed: dict[str, Any] | None) -> dict[str, Any] | None:
        """A question that was not answered returns to the composer, before what has been typed there since."""
        if exchange is None or not self.kind.typed:
            return None
        typed = typed or {"text": "", "files": []}
        texts = [text for text in (exchange.question, typed["text"]) if text.strip()]
        return {"text": "\n".join(texts), "files": [*exchange.files, *typed["files"]]}

    def _page(self, conversation: Conversation, composed: dict[str, Any] | None = None) -> list[Any]:
        busy = conversation.busy
        value = {} if composed is None else {"value": composed}
        question = gr.update(submit_btn=not busy, stop_btn="Stop" if busy else False, **value)
        return [shown(conversation), question, gr.update(interactive=busy)]

    def add_photo(self, photo: str | None, typed: dict[str, Any] | None) -> tuple[None, Any]:
        typed = typed or {"text": "", "files": []}
        return None, typed | {"files": typed["files"] + ([photo] if photo else [])}

    @staticmethod
    def to_file(conversation: Conversation) -> str:
        return to_markdown(conversation.exchanges)


def settings_from(max_new_tokens: float, temperature: float, clean_up: bool, style: Any) -> Settings:
    return Settings(int(max_new_tokens), float(temperature), bool(clean_up), style)
