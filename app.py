"""The page and the API: three tabs over one assistant and one about it, and the endpoints /image, /text and /voice.

In: the `Serving` of an assistant. Out: `gr.Blocks`, which `serve` puts on a port. One queue with one place before the
model serves all of them. Unusual: neither the page nor the server fetches anything from the internet or reports to it.

The conversations are kept on the server, per session, and the browser only shows them: a trace cannot slip into a
prompt, and no message that a browser sends back is trusted. Every question takes the same three steps: it is
taken down, it stands in the chat, it is answered.

    python app.py          # HOST, PORT, VLM_PRESET and VLM_ADAPTER choose what is served and where

On a Space of Hugging Face this file is started as it is; its one preset is chosen there, and stays.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.processing_utils import save_pil_to_cache

from vlm import Answer, Assistant, Settings, Turn, UserError, load_assistant
from vlm.chat.conversation import NOTHING, Composed, Conversation, Exchange, composed_exchange, to_markdown
from vlm.inputs.images import open_image
from vlm.serving.about import PLOT, about, how_to_see
from vlm.serving.endpoints import Endpoints, settings_from
from vlm.serving.messages import WORD_JOINER, Message, messages, numbered_messages, typed
from vlm.serving.switch import Serving
from vlm.serving.zero_gpu import run_on

try:
    import spaces  # before anything uses CUDA
except ImportError:
    spaces = None

logger = logging.getLogger(__name__)

TITLE = "Ask a picture"
ASSETS = Path(__file__).parent / "assets"
MAX_WAITING = 20  # questions in the queue; whoever comes next is asked to try again
MAX_UPLOAD = "64mb"  # ten minutes of speech as a browser records it (48 kHz, 16 bit, one channel) are 58 MB
KEEP_UPLOADS_SECONDS = 4 * 60 * 60
LOOK_FOR_OLD_UPLOADS_SECONDS = 15 * 60
TEXT_EXAMPLES = ("Why is the sky blue?", "Give me three names for a cat.", "What is the capital of France?")
VOICE_EXAMPLES = ("what-is-the-capital-of-France.wav", "why-is-the-sky-blue.wav")

# What is copied must not hold the invisible characters that keep markup literal in the chat.
HEAD = f"""<script>
document.addEventListener("copy", event => {{
    const copied = getSelection().toString();
    if (!copied.includes("{WORD_JOINER}")) return;
    event.clipboardData.setData("text/plain", copied.replaceAll("{WORD_JOINER}", ""));
    event.preventDefault();
}});
if (navigator.clipboard) {{
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = text => write(text.replaceAll("{WORD_JOINER}", ""));
}}
</script>"""
REFRESH_SECONDS = 0.1  # while an answer grows: redrawing the page at every token would slow the model down
BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}

# The events that use the model share one place before it; all others answer at once. Those that may refuse are
# queued nevertheless, without a limit: only then does Gradio show the message of an error. The others are sent however
# often they occur: else the browser would drop the answer to a question that follows closely upon a stop.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
ALWAYS: dict[str, Any] = {"trigger_mode": "multiple", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = ALWAYS | {"queue": False, "show_progress": "hidden"}
MAY_REFUSE: dict[str, Any] = AT_ONCE | {"queue": True, "concurrency_limit": None, "trigger_mode": "once"}

DOWNLOAD = """text => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/markdown"}));
    link.download = "conversation.md";
    link.click();
    URL.revokeObjectURL(link.href);
}"""

UNEXPECTED = "Something went wrong here and was noted in the log. Please try again."

THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Arial", "sans-serif"],
    font_mono=["ui-monospace", "Consolas", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_600",  # the theme's own grey is too faint to read comfortably
    body_text_color_subdued_dark="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
)


@dataclass(frozen=True)
class Kind:
    """What sets one tab apart from the others."""

    name: str
    invitation: str
    prompt: str = ""
    typed: bool = True
    pictures: bool = False
    examples: tuple[Exchange, ...] = ()


def build_app(serving: Serving, switchable: bool = True) -> gr.Blocks:
    """The whole page. It keeps nothing of what is said: conversations belong to the sessions.

    `switchable`: whoever sees it may change the preset, for all."""
    gr.set_static_paths([ASSETS / "examples"])  # served as they are; copies go with old uploads
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(LOOK_FOR_OLD_UPLOADS_SECONDS, KEEP_UPLOADS_SECONDS),
        fill_width=False,
    ) as page:
        kinds = (gr.HTML, gr.Markdown, gr.Markdown, gr.HTML)
        shown = zip(kinds, views_of(serving.assistant), strict=True)
        header, cannot_see, card, plot = views = [kind(**view, render=False) for kind, view in shown]
        header.render()
        settings = settings_components(serving.assistant.settings)
        with gr.Tabs():
            for kind in tab_kinds():
                with gr.Tab(kind.name):
                    if kind.pictures:
                        cannot_see.render()
                    ConversationTab(serving, kind, settings)
            with gr.Tab("About this model"):
                if switchable:
                    show_switch(page, serving, views)
                card.render()
                plot.render()
        show_settings(settings)
        publish(Endpoints(serving), settings)
    return page.queue(max_size=MAX_WAITING)


def tab_kinds() -> list[Kind]:
    folder = ASSETS / "examples"
    questions = {"rocket": "Is there a rocket in the picture?", "cat": "Is there a dog in the picture?"}
    typed_ones = [
        Exchange(questions.get(path.stem, "What is this?"), (str(path),))
        for path in sorted(folder.iterdir())
        if path.suffix in {".png", ".jpg"}
    ]
    spoken_one = Exchange("", (str(folder / "fire-truck.jpg"),), str(folder / "what-color-is-it.wav"))
    return [
        Kind(
            name="Image",
            invitation="Add a picture and ask about it",
            prompt="Ask about the picture",
            pictures=True,
            examples=(*typed_ones, spoken_one),
        ),
        Kind(
            name="Text",
            invitation="Ask anything",
            prompt="Your question",
            examples=tuple(map(Exchange, TEXT_EXAMPLES)),
        ),
        Kind(
            name="Voice",
            invitation="Press Record and speak, or choose a recording",
            typed=False,
            examples=tuple(Exchange("", recording=str(folder / name)) for name in VOICE_EXAMPLES),
        ),
    ]


def settings_components(defaults: Settings) -> list[Any]:
    """In the order of the fields of `Settings`; shown by `show_settings`, below the tabs that read them."""
    styles = [("Sentences", "full"), ("Keywords", "keywords")]
    return [
        gr.Slider(16, 512, defaults.max_new_tokens, step=1, label="Longest answer, in tokens", render=False),
        gr.Slider(0, 1.5, defaults.temperature, step=0.1, label="Temperature", render=False),
        gr.Checkbox(defaults.clean_up, label="Clean up answers about pictures", render=False),
        gr.Radio(styles, value=defaults.style, label="Answer style", render=False),
    ]


def show_settings(settings: list[Any]) -> None:
    length, temperature, clean_up, style = settings
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            length.render()
            temperature.render()
        style.render()
        clean_up.render()


def views_of(assistant: Assistant) -> list[dict[str, Any]]:
    """What depends on the model: the header, what to do about a model that cannot see, the card and the plot of its
    adapter. As arguments of their components, or of updates of them."""
    folder, plot = assistant.adapter_folder, ""
    if folder and (folder / PLOT).is_file():
        gr.set_static_paths([folder / PLOT])
        source = f"gradio_api/file={quote(str((folder / PLOT).absolute()))}"
        plot = f'<img src="{source}" alt="Loss and learning rates in training">'
    return [
        {"value": f"<header><h1>{TITLE}</h1><p>{escape(assistant.description)}</p></header>"},
        {"value": how_to_see(assistant.config.name), "visible": folder is None},
        {"value": about(assistant.config, folder)},
        {"value": plot, "visible": bool(plot)},
    ]


def show_switch(page: gr.Blocks, serving: Serving, views: list[Any]) -> None:
    """The choice of a preset. It waits for its turn like a question, so that no answer is cut off."""
    with gr.Row(equal_height=True):
        preset = gr.Dropdown(
            [serving.preset],  # and all others once they are known, which takes a moment
            value=serving.preset,
            label="Preset",
            info="Another preset answers everyone who uses this page, once the questions under way are answered. "
            "Conversations stay.",
            scale=4,
        )
        change = gr.Button("Use this preset")

    def show() -> list[Any]:
        choice = gr.update(choices=serving.presets, value=serving.preset)
        return [choice, *(gr.update(**view) for view in views_of(serving.assistant))]

    def switch(chosen: str) -> list[Any]:
        serving.switch(chosen)
        return show()

    change.click(plainly(switch), preset, [preset, *views], api_visibility="private", **MODEL)
    page.load(show, None, [preset, *views], **AT_ONCE)  # another visitor may have switched


class ConversationTab:
    """The components of one tab and what happens in it. To be made inside `gr.Blocks`."""

    def __init__(self, serving: Serving, kind: Kind, settings: list[Any]) -> None:
        self.serving, self.kind, self.settings = serving, kind, settings
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
            placeholder=self.kind.prompt,
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
        conversation, settings = self.conversation, self.settings
        page = [self.chat, self.question, self.stop]
        spoken = [self.recording.stop_recording, self.recording.upload]
        taken = [
            gr.on(
                [self.question.submit] if self.kind.typed else spoken,
                plainly(self.ask),
                [conversation, self.question, self.recording, *settings],
                **MAY_REFUSE,
            ),
            self.chat.example_select(plainly(self.ask_example), [conversation, *settings], **MAY_REFUSE),
            self.chat.retry(plainly(self.ask_again), [conversation, *settings], **MAY_REFUSE),
            self.chat.edit(plainly(self.ask_edited), [conversation, *settings], **MAY_REFUSE),
        ]
        shown = [each.success(self.show, conversation, [*page, self.recording], **AT_ONCE) for each in taken]
        answers = [each.success(self.answer, conversation, self.chat, **ALWAYS, **MODEL) for each in shown]
        stops = gr.on([self.stop.click, self.question.stop], None, cancels=answers, api_visibility="private")
        stops.then(self.settle, [conversation, self.question], page, **AT_ONCE)
        for each in answers:
            each.success(self.settle_finished, [conversation, self.question], page, **AT_ONCE)
        clears = self.chat.clear(None, cancels=answers, api_visibility="private")
        clears.then(self.clear, conversation, page, **AT_ONCE)
        self.chat.undo(plainly(self.undo), [conversation, self.question], page, **MAY_REFUSE)

    def _wire_tools(self) -> None:
        written = self.download.click(self.write, self.conversation, self.downloaded, **AT_ONCE)
        written.then(None, self.downloaded, js=DOWNLOAD, **AT_ONCE)

    # A question is taken down. These have no outputs, so that a refusal leaves the page as it was.

    def ask(
        self, conversation: Conversation, composed: Composed | None, recording: str | None, *settings: Any
    ) -> None:
        self._take_down(conversation, composed_exchange(composed or NOTHING, recording), settings)

    def ask_example(self, conversation: Conversation, chosen: gr.SelectData, *settings: Any) -> None:
        self._take_down(conversation, self.kind.examples[chosen.index], settings)

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
        if exchange.pictures and not self.kind.pictures:
            raise UserError("Questions about pictures go on the Image tab.")
        if self.kind.pictures and not any(each.pictures for each in [*conversation.exchanges[:at], exchange]):
            raise UserError("Please add a picture first: upload, paste or drop one, or use the camera.")
        pictures = tuple(map(self._presentable, exchange.pictures))
        conversation.begin(replace(exchange, pictures=pictures, settings=settings_from(*settings)), at)

    def _presentable(self, path: str) -> str:
        """A readable picture, or UserError, as a file that browsers can show: few of them know TIFF."""
        picture = open_image(path)
        if Path(path).suffix.lower() in BROWSERS_SHOW:
            return path
        converted = save_pil_to_cache(picture, str(Path(path).parent), Path(path).stem, "png")
        self.chat.temp_files.add(converted)  # deleted when its time is up, like the upload
        return converted

    # It is answered.

    def answer(self, conversation: Conversation) -> Iterator[list[Message]]:
        """The chat as its last answer grows. Gradio closes it on Stop and Clear, and when the browser goes away."""
        exchange = conversation.to_answer()
        if exchange is None:
            return  # it was stopped while it waited for its turn
        drawn_stage, drawn_at = "", 0.0
        try:
            with closing(self._stream(exchange, conversation.history())) as snapshots:
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

    def _stream(self, asked: Exchange, history: list[Turn]) -> Generator[Answer, None, None]:
        yield from self.serving.assistant.stream(
            asked.question, asked.pictures, asked.recording, history, asked.settings
        )

    # The page follows.

    def show(self, conversation: Conversation) -> list[Any]:
        """The question stands in the chat, and the composer is empty."""
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


def publish(endpoints: Endpoints, settings: list[Any]) -> None:
    """The endpoints' own components are not on the page; the settings are the page's, with their defaults."""
    question = gr.Textbox(label="Question", visible=False)
    images = gr.File(label="Pictures", file_count="multiple", visible=False)
    audio = gr.Audio(label="Recording", type="filepath", visible=False)
    results = [gr.Textbox(label="Answer", visible=False), gr.JSON(label="How it came about", visible=False)]
    length, temperature, clean_up, style = settings
    for function, inputs in (
        (endpoints.image, [question, images, audio, length, temperature, clean_up, style]),
        (endpoints.text, [question, length, temperature, style]),
        (endpoints.voice, [audio, length, temperature, style]),
    ):
        button = gr.Button(visible=False)
        button.click(plainly(function), inputs, results, api_name=function.__name__, **MODEL)


def plain_sentence(problem: Exception) -> str:
    """What to show for `problem`. Notices are HTML, and a message can hold the name of a file."""
    if isinstance(problem, UserError):
        return escape(str(problem), quote=False)
    if isinstance(problem, gr.Error):
        return str(problem.message)  # from ZeroGPU: that this visitor's time is used up, for one
    logger.error("Unexpected error", exc_info=problem)
    return UNEXPECTED


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose errors reach the page or the caller of the API as a plain sentence."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as problem:
            raise gr.Error(plain_sentence(problem), print_exception=False) from problem

    return guarded


def serve(page: gr.Blocks, host: str, port: int, **options: Any) -> None:
    """Put the page on a port; blocks unless told otherwise."""
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=["api", "settings"],
        max_file_size=MAX_UPLOAD,
        theme=THEME,
        css_paths=ASSETS / "app.css",
        head=HEAD,
        **options,
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    chosen = os.environ.get
    preset, adapter = chosen("VLM_PRESET") or "embedded", chosen("VLM_ADAPTER") or None
    try:
        assistant = load_assistant(preset, adapter)
    except UserError as error:
        sys.exit(f"app.py: {error}")
    if spaces:
        assistant = run_on(spaces.GPU, assistant)
    # On a Space the one who chose the preset is not the one who sees the page, and ZeroGPU takes weights at start only
    page = build_app(Serving(assistant, preset, adapter), switchable="SPACE_ID" not in os.environ)
    host = chosen("HOST") or chosen("GRADIO_SERVER_NAME") or "127.0.0.1"  # a Space sets the second
    serve(page, host, int(chosen("PORT") or chosen("GRADIO_SERVER_PORT") or "7860"))


if __name__ == "__main__":
    main()
