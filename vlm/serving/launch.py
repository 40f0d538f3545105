"""The page -> a port. Neither the page nor the server fetches anything from the internet or reports to it."""

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import APIRouter

ASSETS = Path(__file__).parent.parent.parent / "assets"
MAX_UPLOAD = "64mb"  # ten minutes of speech as a browser records it (48 kHz, 16 bit, one channel) are 58 MB

SCRIPTS = ("page", "chat", "keeping", "list", "pictures", "voice")  # in assets/page/, in this order


def head() -> str:
    """What the page does in the browser beyond Gradio's own components, as one script."""
    code = "\n".join((ASSETS / "page" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return f"<script>\n{code}\n</script>"


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


def serve(page: gr.Blocks, host: str, port: int, api: APIRouter | None = None, **options: Any) -> None:
    """Put the page on a port, and the routes of the API beside it; blocks unless told otherwise."""
    page.launch(
        app_kwargs={"routes": api.routes} if api else None,
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=["api"],
        max_file_size=MAX_UPLOAD,
        theme=theme(),
        css_paths=ASSETS / "app.css",
        head=head(),
        **options,
    )
