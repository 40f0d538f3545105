"""What other assistants call: the endpoints as tools of the Model Context Protocol (MCP), under /gradio_api/mcp.

Gradio can offer its endpoints by itself, but to those no list of files arrives, and an answer that nobody waits for any
more goes on. The tools are the methods of `Tools`; what an assistant reads of them is their docstrings.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter, from_thread, to_thread
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field
from starlette.routing import Route

from vlm.errors import UserError
from vlm.serving.body import JSON_BYTES
from vlm.serving.callers import CALLER, SCOPE_KEY
from vlm.serving.endpoints import QuestionEndpoints
from vlm.serving.guard import TOOLS
from vlm.serving.limits import duration
from vlm.serving.plain_errors import plain_sentence
from vlm.serving.search_endpoints import SearchEndpoints

SESSIONS, IDLE_SECONDS = 500, 600
PROGRESS_SECONDS = 1.0
# Threads of their own: a call holds one while it waits, and the server needs its others for all else
ANSWERS, SEARCHES = CapacityLimiter(100), CapacityLimiter(2)

File = Annotated[
    str,
    Field(
        description="A file: a data URL (data:image/jpeg;base64,...), or the path that an upload to /gradio_api/upload of "
        "this server returned. Other addresses are not fetched."
    ),
]
Length = Annotated[
    int | None, Field(description="The longest answer, in tokens; left out, as the preset says.")
]


class Tools:
    def __init__(self, endpoints: QuestionEndpoints, searches: SearchEndpoints) -> None:
        self.endpoints, self.searches = endpoints, searches

    async def image(
        self,
        context: Context,
        question: str,
        images: list[File],
        audio: File | None = None,
        max_new_tokens: Length = None,
    ) -> str:
        """Answer a question about one or more pictures. A recording can ask it in place of the words."""
        return await _last(context, partial(self.endpoints.image, question, images, audio, max_new_tokens))

    async def text(self, context: Context, question: str, max_new_tokens: Length = None) -> str:
        """Answer a question without a picture."""
        return await _last(context, partial(self.endpoints.text, question, max_new_tokens))

    async def voice(self, context: Context, audio: File, max_new_tokens: Length = None) -> str:
        """Answer a spoken question: a recording of at most ten minutes."""
        return await _last(context, partial(self.endpoints.voice, audio, max_new_tokens))

    async def search(
        self, context: Context, words: str, pictures: list[File], picture: File | None = None, count: int = 24
    ) -> list[dict[str, Any]]:
        """Find pictures among those given by words, by a similar picture, or by both. Best first, with scores."""
        return await _last(
            context, partial(self.searches.search, words, pictures, picture, None, count), SEARCHES
        )

    async def classify(self, context: Context, picture: File, names: str) -> dict[str, float]:
        """Tell which of some names, separated by commas, fits a picture best. Returns each name's probability."""

        def once() -> Iterator[dict[str, float]]:
            yield self.searches.classify(picture, names)

        return await _last(context, once, SEARCHES)


async def _last(
    context: Context, ask: Callable[[], Iterator[Any]], limiter: CapacityLimiter = ANSWERS
) -> Any:
    """The last thing that is yielded. Between two the thread looks whether it is still wanted, and tells how it goes."""
    request = context.request_context.request
    assert request is not None, "tools are called over HTTP only"
    CALLER.set(request.scope[SCOPE_KEY])  # of this call, not of the session's first

    def run() -> Any:
        latest, shown = None, 0.0
        for latest in ask():
            from_thread.check_cancelled()
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                from_thread.run(context.report_progress, shown, None, _progress(latest))
        return latest[0] if isinstance(latest, tuple) else latest  # an answer comes with how it came about

    try:
        return await to_thread.run_sync(run, limiter=limiter)
    except Exception as problem:
        raise UserError(plain_sentence(problem)) from None


def _progress(latest: Any) -> str:
    if not isinstance(latest, tuple):
        return "Looking at the pictures"
    stage = latest[1]["stage"]
    return (
        f"Waiting, about {duration(latest[1]['seconds']['wait'])}"
        if stage == "waiting"
        else stage.capitalize()
    )


def tool_server(endpoints: QuestionEndpoints, searches: SearchEndpoints) -> FastMCP:
    """Its `session_manager` is to run while it is served."""
    server = FastMCP(
        "Ask a picture",
        streamable_http_path=TOOLS,
        max_request_body_size=JSON_BYTES,
        max_sessions=SESSIONS,
        session_idle_timeout=IDLE_SECONDS,
        # hosts and origins are checked for all routes (vlm/serving/guard.py)
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    tools = Tools(endpoints, searches)
    for function in (tools.image, tools.text, tools.voice, tools.search, tools.classify):
        server.add_tool(function)
    return server


def tool_routes(server: FastMCP) -> list[Route]:
    """The address with and without a slash at its end."""
    routes = [route for route in server.streamable_http_app().routes if isinstance(route, Route)]
    return [*routes, *(Route(f"{route.path}/", endpoint=route.endpoint) for route in routes)]
