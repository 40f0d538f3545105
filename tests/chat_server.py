"""A server that speaks the shapes of vLLM's OpenAI-compatible server, and its faults, over real HTTP on this machine.

What it answers to each chat request is written down beforehand. The chunks are laid out as vLLM 0.11 sends them."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK: dict[str, Any] = {
    "id": "chatcmpl-9d6a1f0c5b7e4d0f8a5d2c3b1e0f9a8b",
    "object": "chat.completion.chunk",
    "created": 1760000000,
}
CHOICE: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None, "token_ids": None}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ChatServer"

    def do_GET(self) -> None:
        data = [
            {"id": name, "object": "model", "created": 1760000000, "owned_by": "vllm", "max_model_len": 4096}
            for name in self.server.models
        ]
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": data})
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.reply(404, {"detail": "Not Found"})
        with self.server.lock:
            self.server.asked.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
        if body["model"] not in self.server.models:
            message = f"The model `{body['model']}` does not exist."
            return self.reply(404, error(message, "NotFoundError", 404))
        with self.server.lock:
            answer = self.server.answers.popleft() if self.server.answers else self.server.otherwise
        answer(self, body)

    def reply(self, status: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, data: Any) -> None:
        self.send(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n")

    def send(self, text: str) -> None:
        content = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass


Answer = Callable[[Handler, dict[str, Any]], None]


def error(message: str, kind: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def says(*pieces: str, finish: str = "stop", counts: tuple[int, int] | None = (31, 7)) -> Answer:
    """The pieces, one a chunk; then, where counts were asked for, how many tokens were read and written."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        begin = {"role": "assistant", "content": ""}
        handler.event(CHUNK | {"model": body["model"], "choices": [CHOICE | {"delta": begin}]})
        for piece in pieces:
            delta = {"content": piece, "reasoning_content": None}
            handler.event(CHUNK | {"model": body["model"], "choices": [CHOICE | {"delta": delta}]})
        last = CHOICE | {"delta": {"content": ""}, "finish_reason": finish, "stop_reason": None}
        handler.event(CHUNK | {"model": body["model"], "choices": [last]})
        if counts and body["stream_options"]["include_usage"]:
            usage = {"prompt_tokens": counts[0], "total_tokens": sum(counts), "completion_tokens": counts[1]}
            handler.event(CHUNK | {"model": body["model"], "choices": [], "usage": usage})
        handler.event("[DONE]")
        handler.send("")

    return answer


def refuses(status: int, body: Any) -> Answer:
    return lambda handler, _: handler.reply(status, body)


def cuts(*pieces: str, error: Any = None) -> Answer:
    """Some of an answer, then an error in the stream or a closed connection."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        for piece in pieces:
            choice = CHOICE | {"delta": {"content": piece}}
            handler.event(CHUNK | {"model": body["model"], "choices": [choice]})
        if error:
            handler.event(error)
        handler.close_connection = True
        handler.connection.close()

    return answer


def drops(handler: Handler, _: dict[str, Any]) -> None:
    handler.close_connection = True
    handler.connection.close()


def echoes(handler: Handler, body: dict[str, Any]) -> None:
    """The last question, a character at a time."""
    said = body["messages"][-1]["content"]
    says(*(said if isinstance(said, str) else said[-1]["text"]))(handler, body)


class Endless:
    """An answer without an end; `left` is set when whoever asked has gone. `how`: it "speaks", "thinks" or is "silent"."""

    def __init__(self, how: str = "speaks") -> None:
        self.left, self.how = threading.Event(), how

    def __call__(self, handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        deltas = {"speaks": {"content": "on "}, "thinks": {"content": None, "reasoning_content": "on "}}
        choice = CHOICE | {"delta": deltas.get(self.how)}
        try:
            while True:
                silent = self.how == "silent"
                handler.send(": ping\n\n") if silent else handler.event(CHUNK | {"choices": [choice]})
                time.sleep(0.02)
        except OSError:
            self.left.set()
            handler.close_connection = True


def hangs(seconds: float) -> Answer:
    def answer(handler: Handler, _: dict[str, Any]) -> None:
        handler.begin()
        time.sleep(seconds)
        handler.close_connection = True

    return answer


class ChatServer(ThreadingHTTPServer):
    """`answers` are given in their order, then `otherwise`; `asked` and `keys` are what came."""

    daemon_threads = True

    def __init__(self, models: Sequence[str] = ("base", "adapter")) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = list(models)
        self.answers: deque[Answer] = deque()
        self.otherwise: Answer = says("All", " is", " well.")
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        """A connection that a client closed is no news."""


@contextmanager
def chat_server(*answers: Answer) -> Iterator[ChatServer]:
    with ChatServer() as server:
        server.answers.extend(answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
