"""The page and all other routes -> one FastAPI app on a port. It fetches nothing from the internet and reports nothing."""

import json
import os
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError
from starlette.middleware import Middleware

from vlm.errors import UserError
from vlm.machine import trim_heaps
from vlm.serving.accounts import Accounts
from vlm.serving.assets import ASSETS
from vlm.serving.endpoints import QuestionEndpoints
from vlm.serving.guard import Guard
from vlm.serving.openai.routes import openai_routes
from vlm.serving.plain_errors import UNEXPECTED
from vlm.serving.search_endpoints import SearchEndpoints
from vlm.serving.sent_files import fetch_nothing
from vlm.serving.serving import Serving
from vlm.serving.status_routes import status_routes
from vlm.serving.translations import table_script
from vlm.serving.uploads import Uploads

THREADS = 128  # Gradio's: an answer that waits for its turn holds one for half a second at a time
SESSIONS = 300  # whose conversations are kept; the oldest goes first
TRIM_SECONDS = 60.0
LAST_WORDS_SECONDS = 1.0  # for what has been said to reach the browsers
NO_MICROPHONE = (
    "Seen from other machines over plain http, browsers give no page the microphone or the camera. "
    "deploy/README.md tells how to serve it over https."
)
MAX_UPLOAD = "64mb"  # ten minutes of speech as a browser records it (48 kHz, 16 bit, one channel) are 58 MB

# In assets/page/, in this order
SCRIPTS = (
    *("page", "translate", "chat", "formulas", "keeping", "reload"),
    *("list", "looking", "pictures", "settings", "recording", "aloud", "voting"),
)


def head() -> str:
    """What the page does in the browser beyond Gradio's own components, as one script."""
    code = "\n".join((ASSETS / "page" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return f"<script>\n{table_script()}\nconst KATEX = {json.dumps(katex())};\n{code}\n</script>"


def katex() -> list[str]:
    """The addresses of Gradio's own KaTeX, its code and its style; none if Gradio has it no more."""
    built = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
    found = [next(built.glob(f"katex-*.{kind}"), None) for kind in ("js", "css")]
    return [f"assets/{each.name}" for each in found if each] if all(found) else []


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


class Site(NamedTuple):
    """What is served: the page, the model behind it, the folder for what people send, and who may come in."""

    page: gr.Blocks
    serving: Serving
    uploads: Uploads | None = None
    accounts: Accounts | None = None


def app_options(site: Site) -> dict[str, Any]:
    """Routes, middleware and errors of the FastAPI app that Gradio makes and adds its own to."""
    beside = status_routes(site.serving, site.uploads), openai_routes(site.serving)
    options: dict[str, Any] = {
        "routes": [route for router in beside for route in router.routes],
        "middleware": [
            Middleware(Guard, site.serving.settings, site.uploads, site.accounts, partial(forget, site.page))
        ],
        "exception_handlers": {FnIndexInferError: _unknown_endpoint, Exception: _unexpected},
    }
    if site.serving.settings.tools:
        from vlm.serving.tools import tool_routes, tool_server

        server = tool_server(QuestionEndpoints(site.serving), SearchEndpoints(site.serving))
        options["routes"] += tool_routes(server)
        options["lifespan"] = lambda app: server.session_manager.run()
    return options


def forget(page: gr.Blocks, session: str) -> None:
    """Let go of a session that holds nothing. Gradio keeps megabytes of each, a copy of the page's description, and every
    call of the API is one."""
    holder = page.state_holder
    with holder.lock:
        held = holder.session_data.get(session)
        if held is not None and not held.state_data:
            del holder.session_data[session]
            holder.time_last_used.pop(session, None)


def _unknown_endpoint(request: Request, problem: Exception) -> JSONResponse:
    return JSONResponse(
        {"error": "There is no endpoint of that name. See /?view=api for those there are."}, 404
    )


def _unexpected(request: Request, problem: Exception) -> JSONResponse:
    return JSONResponse({"error": UNEXPECTED}, 500)


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


def reach_directly(*hosts: str) -> None:
    """Gradio asks its own page whether it is there, and would ask a proxy for it."""
    for name in ("no_proxy", "NO_PROXY"):  # who reads them differs in the case
        known = [each for each in os.environ.get(name, "").split(",") if each]
        os.environ[name] = ",".join(dict.fromkeys([*known, *hosts]))


def trust_the_hubs_proxy() -> None:
    """On a Space every request comes from the hub's proxy, and all visitors would be one person without what it says of
    them. Nobody else reaches the container."""
    given = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
    if given != "*":
        os.environ["FORWARDED_ALLOW_IPS"] = f"{given},10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"


def start(site: Site) -> None:
    """Put it on its port, and return once it answers."""
    fetch_nothing(site.page)
    settings = site.serving.settings
    if settings.space:
        trust_the_hubs_proxy()
    reach_directly("127.0.0.1", "localhost", settings.host.strip("[]"))
    site.page.launch(
        server_name=settings.host,
        server_port=settings.port,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        ssl_verify=False,  # when Gradio looks whether its own page is there
        app_kwargs=app_options(site),
        max_threads=THREADS,
        state_session_capacity=SESSIONS,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=["api"],
        max_file_size=MAX_UPLOAD,
        theme=theme(),
        css_paths=ASSETS / "app.css",
        head=head(),
    )


def serve(site: Site) -> None:
    """Serve until Ctrl-C or SIGTERM; then the answers under way may end, and a second signal ends it at once."""
    told_to_stop = threading.Event()

    def stop(number: int, _: Any) -> None:
        if told_to_stop.is_set():
            raise KeyboardInterrupt
        told_to_stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    start(site)
    print(f"The page is on {site.page.local_url}", flush=True)
    settings = site.serving.settings
    if settings.public and not settings.space and not settings.certificate:
        print(NO_MICROPHONE, flush=True)
    try:
        trimmed = time.monotonic()
        while not told_to_stop.wait(1):
            if time.monotonic() - trimmed > TRIM_SECONDS:
                trim_heaps()
                trimmed = time.monotonic()
        print("Stopping: answers under way may end.", flush=True)
        site.serving.stop()
        time.sleep(LAST_WORDS_SECONDS)
    except KeyboardInterrupt:
        pass
    site.page.close(verbose=False)
