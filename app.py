"""The page and the API: three tabs over one assistant, and the endpoints /image, /text and /voice.

In: an `Assistant`. Out: `gr.Blocks`, which `serve` puts on a port. One queue with one place before the model
serves all of them. Unusual: neither the page nor the server fetches anything from the internet or reports to it.

    python app.py          # HOST, PORT, VLM_PRESET and VLM_ADAPTER choose what is served and where
"""

import logging
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from page.conversation import Exchange
from page.messages import WORD_JOINER
from page.notices import plainly
from page.tab import MODEL, ConversationTab, Kind, settings_from
from vlm import Assistant, Settings, UserError, load_assistant
from vlm.assistant import Style

TITLE = "Ask a picture"
ASSETS = Path(__file__).parent / "assets"
MAX_WAITING = 20  # questions in the queue; whoever comes next is asked to try again
MAX_UPLOAD = "64mb"  # ten minutes of speech as a browser records it (48 kHz, 16 bit, one channel) are 58 MB
KEEP_UPLOADS_SECONDS = 4 * 60 * 60
LOOK_FOR_OLD_UPLOADS_SECONDS = 15 * 60
TEXT_EXAMPLES = ("Why is the sky blue?", "Give me three names for a cat.", "What is the capital of France?")

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
)


def build_app(assistant: Assistant) -> gr.Blocks:
    """The whole page. It keeps nothing of what is said: conversations belong to the sessions."""
    gr.set_static_paths(ASSETS / "examples")  # served as they are; copies would be deleted with old uploads
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(LOOK_FOR_OLD_UPLOADS_SECONDS, KEEP_UPLOADS_SECONDS),
        fill_width=False,
    ) as page:
        gr.HTML(f"<header><h1>{TITLE}</h1><p>{escape(assistant.description)}</p></header>")
        settings = settings_components(assistant.settings)
        with gr.Tabs():
            for kind in tab_kinds():
                with gr.Tab(kind.name):
                    ConversationTab(assistant, kind, settings)
        show_settings(settings)
        publish(Endpoints(assistant), settings)
    return page.queue(max_size=MAX_WAITING)


def tab_kinds() -> list[Kind]:
    folder = ASSETS / "examples"
    pictures = sorted(path for path in folder.glob("*") if path.suffix in {".png", ".jpg"})
    recordings = sorted(folder.glob("*.wav"))
    return [
        Kind(
            name="Image",
            invitation="Add a picture and ask about it",
            pictures=True,
            examples=tuple(Exchange("What is this?", (str(path),)) for path in pictures),
        ),
        Kind(name="Text", invitation="Ask anything", examples=tuple(map(Exchange, TEXT_EXAMPLES))),
        Kind(
            name="Voice",
            invitation="Press Record and speak, or choose a recording",
            typed=False,
            examples=tuple(Exchange("", recording=str(path)) for path in recordings),
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
        for pair in ((length, temperature), (style, clean_up)):
            with gr.Row():
                for component in pair:
                    component.render()


class Endpoints:
    """What programs call. Each docstring is the description that clients, and MCP, are given."""

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    def image(
        self,
        question: str,
        images: list[str] | None,
        audio: str | None = None,
        max_new_tokens: float = Settings.max_new_tokens,
        temperature: float = Settings.temperature,
        clean_up: bool = Settings.clean_up,
        style: Style = Settings.style,
    ) -> tuple[str, dict[str, Any]]:
        """Answer a question about one or more pictures. Returns the answer and how it came about.

        Args:
            question: The question in words; may be empty where a recording asks it.
            images: The pictures, as files.
            audio: The spoken question, as a file, or nothing.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            clean_up: Whether the base model may polish the adapter's draft.
            style: full for sentences, keywords for the words that matter.
        """
        if not images:
            raise UserError("Please send at least one picture.")
        settings = settings_from(max_new_tokens, temperature, clean_up, style)
        return self._finish(question, images, audio, settings)

    def text(
        self, question: str, max_new_tokens: float, temperature: float, style: Style
    ) -> tuple[str, dict[str, Any]]:
        """Answer a question without a picture. Returns the answer and how it came about.

        Args:
            question: The question.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            style: full for sentences, keywords for the words that matter.
        """
        return self._finish(question, (), None, settings_from(max_new_tokens, temperature, True, style))

    def voice(
        self, audio: str | None, max_new_tokens: float, temperature: float, style: Style
    ) -> tuple[str, dict[str, Any]]:
        """Answer a spoken question. Returns the answer and how it came about, what was heard among it.

        Args:
            audio: The recording, as a file.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always gives the same answer; higher values vary it.
            style: full for sentences, keywords for the words that matter.
        """
        if not audio:
            raise UserError("Please send a recording.")
        return self._finish("", (), audio, settings_from(max_new_tokens, temperature, True, style))

    def _finish(
        self, question: str | None, images: Sequence[str], audio: str | None, settings: Settings
    ) -> tuple[str, dict[str, Any]]:
        answer = self.assistant.answer(question or "", images, audio, settings=settings)
        return answer.text, answer.to_dict()


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
    assistant = load_assistant(chosen("VLM_PRESET", "embedded"), chosen("VLM_ADAPTER") or None)
    serve(build_app(assistant), chosen("HOST", "127.0.0.1"), int(chosen("PORT", "7860")))


if __name__ == "__main__":
    main()
