"""An OpenAI-compatible server (vLLM, llama.cpp's own, Ollama): chat messages -> pieces of text, as they come.

It has a tokenizer and a chat template of its own, so that it is asked in messages, and its models go by name. One thread
carries all answers under way; whoever stops one closes its connection, at which servers stop writing.
"""

import asyncio
import json
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

import httpx  # comes with gradio

from vlm.engines.waiting import ENDED, parts_of
from vlm.errors import UserError

PARALLEL = 32  # answers asked for at once: the server batches them
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0  # without a byte: a long question in a full batch is read in less
PAUSES = 0.3, 1.0  # seconds before a dropped connection is tried again, while nothing has come
ADDRESS = "VLM_REMOTE"
KEY = "VLM_REMOTE_KEY"
LET_GO = "The server was let go of. Please ask again."
# Of a request, what is not OpenAI's own: some servers refuse it by name
EXTENSIONS = {"top_k", "min_p", "repetition_penalty", "repeat_penalty"}
REFUSALS = httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY
TOO_LONG = "context", "max_new_tokens"  # words of vLLM, llama.cpp and OpenAI, and of TGI


class Refused(Exception):
    """The server knows OpenAI's own settings only."""


class TooLong(UserError):
    """The conversation and its answer do not fit into the server's context."""


class Unavailable(UserError):
    """The server does not answer as it should: not the question is to be mended, but the server."""


class Piece(NamedTuple):
    """What is new of an answer. `finish` is "stop" or "length" with the last text; the counts come after it, if at all."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None


NOTHING_YET = Piece()  # the first chunk names the role only


class RemoteServer:
    """`url` ends before "/chat/completions"; `silence` is how many seconds the server may say nothing."""

    name = "remote"
    parallel = PARALLEL

    def __init__(self, url: str, key: str = "", silence: float = SILENCE_SECONDS) -> None:
        self.device = _host(url)
        self._silence = silence
        self._refused: set[str] = set()  # of EXTENSIONS
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(silence, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=2 * PARALLEL),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote", daemon=True)
        self._thread.start()
        self._closed = False
        self._lock = threading.Lock()  # what begins before `close` is ended by it

    def stream(self, request: dict[str, Any]) -> Generator[Piece | None, None, None]:
        """The answer to a chat request; None while nothing comes. Closing the iterator closes the connection.

        A connection that fails before the first piece is tried again. Raises UserError."""
        pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            self._check_open()
            asking = asyncio.run_coroutine_threadsafe(self._answer(request, pieces.put), self._loop)
        asking.add_done_callback(lambda done: pieces.put(UserError(LET_GO)) if done.cancelled() else None)
        try:
            yield from parts_of(pieces)
        finally:
            asking.cancel()

    def models(self) -> list[str]:
        """The names of the models that the server has; of llama.cpp's also their aliases. Raises UserError."""
        with self._lock:
            self._check_open()
            asking = asyncio.run_coroutine_threadsafe(self._models(), self._loop)
        try:
            return asking.result()
        except CancelledError as error:
            raise UserError(LET_GO) from error

    def close(self) -> None:
        """Answers under way end with an error."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise UserError(LET_GO)

    async def _answer(self, request: dict[str, Any], put: Callable[[Any], None]) -> None:
        """Put the pieces of the answer, then an error or ENDED."""
        try:
            for pause in (*PAUSES, None):
                begun = False
                try:
                    async for piece in self._asked(request):
                        begun = begun or piece != NOTHING_YET
                        put(piece)
                    break
                except httpx.RequestError as error:
                    if begun or pause is None or isinstance(error, httpx.ReadTimeout):
                        raise self._plain(error, begun) from error
                    await asyncio.sleep(pause)
            put(ENDED)
        except Exception as error:  # handed to whoever waits
            put(error)

    async def _asked(self, request: dict[str, Any]) -> AsyncIterator[Piece]:
        """Of what the server is not known to refuse."""
        try:
            async for piece in self._ask({name: request[name] for name in request.keys() - self._refused}):
                yield piece
        except Refused:
            self._refused = EXTENSIONS
            async for piece in self._asked(request):
                yield piece

    async def _ask(self, request: dict[str, Any]) -> AsyncIterator[Piece]:
        async with self._client.stream("POST", "chat/completions", json=request) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise await self._refusal(response, request)
            async for line in _lines(response):
                if not line.startswith("data:"):  # an empty line, or a comment that keeps the connection open
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                yield self._piece(data)
        raise httpx.RemoteProtocolError("The answer ended without its mark.")

    def _piece(self, data: str) -> Piece:
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                raise Unavailable(
                    f"{self._server} broke the answer off ({_message(chunk)}). Please ask again."
                )
            usage = chunk.get("usage") or {}
            counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
            choice = (chunk.get("choices") or [{}])[0]
            delta = choice.get("delta") or {}
            return Piece(delta.get("content") or "", choice.get("finish_reason"), *counts)
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            if isinstance(error, UserError):
                raise
            raise Unavailable(self._no_api) from error

    async def _refusal(self, response: httpx.Response, request: Mapping[str, Any]) -> Exception:
        """What an answer other than 200 means, and what to do."""
        status, message = response.status_code, _message(_json(response))
        if status == httpx.codes.NOT_FOUND:
            return await self._missing(str(request["model"]))
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return Unavailable(f"{self._server} wants a key, or another one. Set {KEY}.")
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return Unavailable(f"{self._server} has too many questions now. Please try again in a moment.")
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Unavailable(
                f"{self._server} failed ({status}: {message}). Its log says more. Please try again."
            )
        if status in REFUSALS and any(name in message for name in EXTENSIONS & request.keys()):
            return Refused()
        if status in REFUSALS and any(word in message.lower() for word in TOO_LONG):
            return TooLong(
                f"The question and its answer do not fit ({message}). Please shorten the question, or ask for a shorter "
                "answer."
            )
        return Unavailable(f"{self._server} refused the question ({status}: {message}).")

    async def _missing(self, model: str) -> UserError:
        try:
            names = await self._models()
        except UserError:
            return Unavailable(self._no_api)
        return Unavailable(
            f"{self._server} has no model {model!r}. It has: {', '.join(names) or 'none'}. Set language.weights and "
            "adapter in the preset to its names."
        )

    async def _models(self) -> list[str]:
        try:
            response = await self._client.get("models", timeout=CONNECT_SECONDS)
            response.raise_for_status()
            named = [(model["id"], *model.get("aliases", ())) for model in response.json()["data"]]
            return list(dict.fromkeys(name for names in named for name in names))
        except httpx.RequestError as error:
            raise self._plain(error, begun=False) from error
        except (httpx.HTTPStatusError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unavailable(self._no_api) from error

    def _plain(self, error: httpx.RequestError, begun: bool) -> UserError:
        if isinstance(error, httpx.ReadTimeout):
            return Unavailable(
                f"{self._server} has said nothing for {self._silence:g} seconds. Please try again later."
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unavailable(
                f"{self._server} cannot be reached. See that it runs and that {ADDRESS} is its address."
            )
        done = "cut the answer off" if begun else "dropped the connection"
        return Unavailable(f"{self._server} {done}. Please ask again.")

    @property
    def _server(self) -> str:
        return f"The server {self.device}"

    @property
    def _no_api(self) -> str:
        return (
            f"{self._server} does not answer as an OpenAI-compatible server does. See that {ADDRESS} is the whole "
            "address, which mostly ends in /v1."
        )


def server_of_environment() -> RemoteServer:
    """The server that VLM_REMOTE names, with the key in VLM_REMOTE_KEY if it wants one."""
    address = os.environ.get(ADDRESS)
    if not address:
        raise UserError(f"The engine is a server: set {ADDRESS} to its address, such as http://host:8000/v1.")
    return RemoteServer(address, os.environ.get(KEY, ""))


def _host(url: str) -> str:
    """Whom people know the server as. UserError where the address is none."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise UserError(f"{ADDRESS} must be an address such as http://host:8000/v1, and is {url!r}.")
    return address.netloc.decode()


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """httpx's own lines also end at separators that stand within a text (U+2028 and others)."""
    begun = b""
    async for piece in response.aiter_bytes():
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    yield begun.decode(errors="replace")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _message(body: Any) -> str:
    """What an error of OpenAI's form says, in one line; older vLLM has it at the top, FastAPI as its `detail`."""
    if not isinstance(body, dict):
        return "no reason given"
    inner = body.get("error", body)
    said = inner.get("message", inner.get("detail")) if isinstance(inner, dict) else inner
    return " ".join(str(said or "no reason given").split())[:300].rstrip(".")
