"""What stands before every route: whose hosts are served, who calls, how much is taken in, and what browsers are told.

Plain ASGI, so that nothing is refused after it is in memory.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from vlm.serving.accounts import Accounts
from vlm.serving.body import JSON_BYTES, BoundedBody, Message, Refused, is_upload, refusal_response
from vlm.serving.callers import CALLER, SCOPE_KEY, Caller, Listeners
from vlm.serving.environment import LOOPBACK, ServerSettings, is_loopback
from vlm.serving.limits import Limit, TryLater
from vlm.serving.uploads import KEEP_SECONDS, NoRoom, Uploads

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]

TOOLS = "/gradio_api/mcp"
SESSIONS_A_MINUTE = 10
SHARES = 4  # one person sends about such a share of UPLOADS_MB at most, while files are kept
OPEN_TO_ALL = ("/health",)
LARGE_BYTES = 2**20  # of a body that counts as files, whatever it is
API_FILES = ("/v1/files", "/v1/audio/transcriptions")
API_FILE_BYTES = 64 * 2**20  # as of a file on the page
# Gradio has these as well: they write files, fetch from elsewhere, or show how the app is used.
CLOSED = re.compile(
    r"/(gradio_api/(deep_link|process_recording|vibe-|undo-vibe|dev/|proxy=|file=https?:|file/|run-history|stream/)|monitoring)"
)
EVENTS = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event>[^/]+)/?")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
}
FRAMES = "frame-ancestors 'self'; object-src 'none'; base-uri 'self'"


class Guard:
    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        settings: ServerSettings,
        uploads: Uploads | None,
        accounts: Accounts | None,
        heard_out: Callable[[str], None],
    ) -> None:
        """`heard_out` is told of a session or an event whose last reader has gone."""
        self.app, self.settings, self.uploads, self.accounts = app, settings, uploads, accounts
        self.heard_out = heard_out
        self.listeners = Listeners()
        self._hosts = {
            *LOOPBACK,
            settings.host.lower(),
            socket.gethostname().lower(),
            *settings.allowed_hosts,
        }
        self._megabytes = Limit("MB of files", settings.request_mb)
        # so that one person does not take the room of all
        self._kept = Limit("MB of files", max(1, settings.uploads_mb / SHARES), KEEP_SECONDS // 3600)
        self._sessions = Limit("requests for a session", SESSIONS_A_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        send = self._with_headers(send)
        try:
            headers = Headers(scope=scope)
            self._check_place(scope, headers)
            person = await self._person(scope, headers)
            self._check_sessions(scope, headers, person)
            most = self._check_size(scope, headers)
            announced = self._announce(scope, headers, person, most)
            body = BoundedBody(receive, send, scope["path"], most, _holds_files(headers))
        except (Refused, TryLater) as refused:
            await refusal(scope, refused)(scope, receive, send)
            return
        caller = Caller(person, lambda: not body.gone.is_set(), self.listeners, self.uploads)
        scope[SCOPE_KEY] = caller
        CALLER.set(caller)
        key = listened_to(scope)
        if key:
            self.listeners.arrive(key)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.end()
            if announced:
                self._charge(scope, headers, person, -max(0, announced - body.bytes))
            if self.uploads:
                self.uploads.arrived(announced)
            if key and self.listeners.go(key):
                self.heard_out(key)

    def _check_place(self, scope: Scope, headers: Headers) -> None:
        """Raises Refused for a host that is not served, a page of another site, and what is closed."""
        host = headers.get("host", "")
        if not self._is_served(hostname(host)):
            name = hostname(host)[:100]
            raise Refused(
                403, f"{name!r} is not served here. Whoever runs the server can add it to ALLOWED_HOSTS."
            )
        origin = headers.get("origin")
        if origin is not None and "*" not in self._hosts:
            origin_host = origin.lower().partition("://")[2]
            if origin_host != host.lower() and hostname(origin_host) not in self.settings.allowed_hosts:
                raise Refused(
                    403, "Pages of other sites may not use this server. Add theirs to ALLOWED_HOSTS."
                )
        if CLOSED.match(scope["path"]):
            raise Refused(404, "There is nothing here.")

    def _is_served(self, name: str) -> bool:
        """A number cannot be a name that a stranger has pointed here, so any is served where others may come at all."""
        return (
            "*" in self._hosts
            or name in self._hosts
            or (not is_loopback(self.settings.host) and is_address(name))
        )

    async def _person(self, scope: Scope, headers: Headers) -> str:
        """The name of an account, or an address. Raises Refused."""
        address = person_at(scope["client"][0] if scope.get("client") else "")
        has_key = self.settings.api_key and scope["path"].startswith("/v1/")  # checked there
        started_here = address == "loopback" and scope["path"] == "/gradio_api/startup-events"
        if self.accounts is None or scope["path"] in OPEN_TO_ALL or started_here or has_key:
            return address
        user = await asyncio.to_thread(self.accounts.user, headers.get("authorization", ""), address)
        if user is None:
            raise Refused(401, "Please give your name and password.")
        return f"user {user}"

    def _check_sessions(self, scope: Scope, headers: Headers, person: str) -> None:
        """Raises TryLater for who begins more sessions with the tools than they need: there is room for so many in all."""
        begins = scope["method"] == "POST" and "mcp-session-id" not in headers
        if self.settings.public and begins and scope["path"].rstrip("/") == TOOLS:
            self._sessions.take(person)

    def _check_size(self, scope: Scope, headers: Headers) -> int:
        """How large the body may be. Raises Refused where it says of itself that it is larger, or holds files and does not
        say."""
        most = JSON_BYTES
        if _holds_files(headers):
            most = (self.settings.request_mb if self.settings.public else self.settings.uploads_mb) * 2**20
            if scope["path"].rstrip("/") in API_FILES:
                most = min(most, API_FILE_BYTES)
        if int(headers.get("content-length") or 0) > most:
            raise Refused(413, f"At most {most // 2**20} MB can be sent at once.")
        if _keeps_files(scope, headers) and "content-length" not in headers:
            raise Refused(411, "Please say how large the files are (Content-Length).")
        return most

    def _announce(self, scope: Scope, headers: Headers, person: str, most: int) -> int:
        """As how much the body counts among the uploads while it comes. Raises TryLater or Refused where it is too much."""
        told = "content-length" in headers or scope["method"] != "POST"
        size = int(headers.get("content-length") or 0) if told else most
        # JSON may hold files as data URLs.
        if not (_keeps_files(scope, headers) or size > LARGE_BYTES):
            return 0
        size = max(size, 1)
        if self.settings.public:
            for limit in self._limits(scope, headers):
                limit.check(person)
        if self.uploads is not None:
            try:
                self.uploads.announce(size)
            except NoRoom as full:
                raise Refused(507, str(full)) from full
        self._charge(scope, headers, person, size)
        return size

    def _limits(self, scope: Scope, headers: Headers) -> list[Limit]:
        """What comes as JSON goes with its request."""
        return [self._megabytes, *([self._kept] if _keeps_files(scope, headers) else [])]

    def _charge(self, scope: Scope, headers: Headers, person: str, size: int) -> None:
        """Below zero, what was announced and did not come is given back."""
        if self.settings.public:
            for limit in self._limits(scope, headers):
                limit.charge(person, size / 2**20)

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not self.settings.space:  # a Space is shown in a frame of the hub
                    headers.setdefault("Content-Security-Policy", FRAMES)
            await send(message)

        return sending


def _keeps_files(scope: Scope, headers: Headers) -> bool:
    return _holds_files(headers) or is_upload(scope["path"])


def _holds_files(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/")


def listened_to(scope: Scope) -> str | None:
    """The session or the event whose answers this request reads."""
    if scope["method"] != "GET":
        return None
    if scope["path"].rstrip("/") == "/gradio_api/queue/data":
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [None])[0]
    found = EVENTS.fullmatch(scope["path"])
    return found["event"] if found else None


def hostname(host: str) -> str:
    """A Host header without its port: "[::1]:7860" -> "::1"."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def person_at(address: str) -> str:
    """Who is behind an address: of IPv6 its network, since one person has all of it."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address or "loopback"
    number = getattr(number, "ipv4_mapped", None) or number  # of which all have one network
    if number.is_loopback:
        return "loopback"
    return str(ipaddress.ip_network((number, 64), strict=False)) if number.version == 6 else str(number)


def refusal(scope: Scope, refused: Refused | TryLater) -> Response:
    headers = {"Connection": "close"}  # what is still under way of the body is not read
    status = refused.status if isinstance(refused, Refused) else 429
    if isinstance(refused, TryLater):
        headers["Retry-After"] = str(refused.seconds)
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Ask a picture", charset="UTF-8"'
    return refusal_response(scope["path"], status, str(refused), headers)
