"""The page and all other routes -> one FastAPI app on a port. It fetches nothing from the internet and reports nothing."""

import socket
from pathlib import Path

import gradio as gr
from fastapi import APIRouter

from vlm.errors import UserError
from vlm.serving.environment import ServerSettings
from vlm.serving.messages import WORD_JOINER
from vlm.serving.status_routes import status_routes
from vlm.serving.switch import Serving

ASSETS = Path(__file__).parent.parent.parent / "assets"
MAX_UPLOAD = "64mb"  # ten minutes of speech as a browser records it (48 kHz, 16 bit, one channel) are 58 MB

# Copied text must not hold the invisible characters that keep markup literal in the chat.
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


def theme() -> gr.themes.Base:
    return gr.themes.Default(
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


def routes(serving: Serving, settings: ServerSettings) -> APIRouter:
    """What is served beside the page. The one place to add to."""
    router = APIRouter()
    router.include_router(status_routes(serving))
    return router


def check_port(host: str, port: int) -> None:
    """Raises UserError where something else listens there already, before a model is loaded in vain."""
    try:
        for family, kind, _, _, address in socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as problem:
        raise UserError(
            f"The page cannot be served on {host}:{port} ({problem.strerror}). Choose another port or address, such as "
            f"PORT={port + 1 if port < 65_535 else 7860}."
        ) from problem


def start(page: gr.Blocks, serving: Serving, settings: ServerSettings) -> None:
    """Put the page and the routes on the port, and return once they answer."""
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        app_kwargs={"routes": routes(serving, settings).routes},
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=["api", "settings"],
        max_file_size=MAX_UPLOAD,
        theme=theme(),
        css_paths=ASSETS / "app.css",
        head=HEAD,
    )


def serve(page: gr.Blocks, serving: Serving, settings: ServerSettings) -> None:
    """Serve until Ctrl-C."""
    start(page, serving, settings)
    print(f"The page is on {page.local_url}", flush=True)
    page.block_thread()
