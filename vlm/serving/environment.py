"""The environment -> what is served, where, and to whom. deploy/README.md lists every variable."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.chat.feedback import check_writable
from vlm.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

LIMITS = {  # variable -> the setting, and the least and the most that it may be
    "MAX_WAITING": ("max_waiting", 1, 1_000),
    "QUESTIONS_A_MINUTE": ("questions_a_minute", 1, 100_000),
    "PICTURES_A_MINUTE": ("pictures_a_minute", 1, 100_000),
    "SEARCH_PICTURES_A_MINUTE": ("search_pictures_a_minute", 1, 1_000_000),
    "SPEECH_SECONDS_A_MINUTE": ("speech_seconds_a_minute", 1, 1_000_000),
    "REQUEST_MB": ("request_mb", 1, 1_000_000),
    "UPLOADS_MB": ("uploads_mb", 1, 100_000_000),
    "STOP_SECONDS": ("stop_seconds", 0, 3_600),
    "FEEDBACK_MB": ("feedback_mb", 1, 100_000_000),
}


@dataclass(frozen=True)
class ServerSettings:
    """`auth` is AUTH as it was given, `user:password` or a file of hashes. Limits are for one person."""

    preset: str = "embedded"
    adapter: str | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    space: bool = False
    allowed_hosts: tuple[str, ...] = ()
    auth: str | None = None
    api_key: str = ""  # of /v1, which is off without one where the page is public
    picture_hosts: tuple[str, ...] = ()  # from which /v1 may fetch pictures, with a port if any
    certificate: str | None = None  # files of TLS, in PEM
    key: str | None = None
    tools: bool = False  # MCP
    max_waiting: int = 20  # questions of all people together
    questions_a_minute: int = 30
    pictures_a_minute: int = 60
    search_pictures_a_minute: int = 1000
    speech_seconds_a_minute: int = 300
    request_mb: int = 256
    uploads_mb: int = 4096  # of all people together
    stop_seconds: int = 30
    feedback: Path | None = None  # where votes are kept; None for no thumbs
    feedback_mb: int = 1024

    @property
    def public(self) -> bool:
        """Whether people other than the owner of this machine may see the page."""
        # where names are allowed, a proxy stands before an address that may be a loopback one
        others = self.auth is not None or bool(self.allowed_hosts)
        return self.space or others or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_environment(environment: Mapping[str, str]) -> ServerSettings:
    """The settings that the variables name, the defaults for those left out or empty. Raises UserError."""
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    default = ServerSettings()
    space = "SPACE_ID" in given

    def whole(name: str, otherwise: int, least: int, most: int) -> int:
        text = given.get(name, str(otherwise))
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise UserError(f"{name} must be a whole number from {least} to {most:,}, not {text!r}.")
        return int(text)

    certificate, key = (_file(name, given.get(name)) for name in ("TLS_CERTIFICATE", "TLS_KEY"))
    if (certificate is None) != (key is None):
        raise UserError("TLS_CERTIFICATE and TLS_KEY go together: set both, or neither.")
    # a Space sets the names that Gradio reads
    port = "PORT" if "PORT" in given else "GRADIO_SERVER_PORT"
    hosts = given.get("ALLOWED_HOSTS", "*" if space else "")
    _check_proxies(given.get("FORWARDED_ALLOW_IPS", ""))
    limits: dict[str, Any] = {
        field: whole(name, getattr(default, field), least, most)
        for name, (field, least, most) in LIMITS.items()
    }
    return ServerSettings(
        preset=given.get("VLM_PRESET", default.preset),
        adapter=given.get("VLM_ADAPTER"),
        host=_host(given.get("HOST") or given.get("GRADIO_SERVER_NAME") or default.host),
        port=whole(port, default.port, 1, 65_535),
        space=space,
        allowed_hosts=_listed(hosts),
        auth=given.get("AUTH"),
        api_key=given.get("VLM_API_KEY", default.api_key),
        picture_hosts=_listed(given.get("VLM_PICTURE_HOSTS", "")),
        certificate=certificate,
        key=key,
        tools=_yes_or_no("MCP", given.get("MCP") or given.get("GRADIO_MCP_SERVER")),
        feedback=_writable(given.get("FEEDBACK")),
        **limits,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip().lower() for each in text.split(",") if each.strip())


def _host(text: str) -> str:
    if "/" in text or " " in text:
        raise UserError(f"HOST must be a name or an address such as 0.0.0.0, not {text!r}.")
    return text


def _check_proxies(text: str) -> None:
    """uvicorn reads them, and passes over in silence what is no address."""
    for each in _listed(text):
        try:
            if each != "*":
                ipaddress.ip_network(each)
        except ValueError as error:
            raise UserError(
                f"FORWARDED_ALLOW_IPS must list addresses or networks such as 10.0.0.0/8, or be *: {error}."
            ) from None


def _file(name: str, path: str | None) -> str | None:
    if path is not None and not os.path.isfile(path):
        told = "what was given" if "\n" in path or "-----" in path else repr(path)  # it may be the key itself
        raise UserError(f"{name} must be the path of a file, and {told} is none.")
    return path


def _writable(path: str | None) -> Path | None:
    """The folder, made if it is not there."""
    if path is None:
        return None
    folder = Path(path).expanduser().absolute()
    check_writable(folder)
    return folder


def _yes_or_no(name: str, text: str | None) -> bool:
    lower = (text or "false").lower()
    if lower not in YES + NO:
        raise UserError(f"{name} must be true or false, not {text!r}.")
    return lower in YES


def base_folder(environment: Mapping[str, str]) -> Path | None:
    """Where uploads go by the wish of whoever starts the app; None for the system's temporary folder."""
    given = environment.get("GRADIO_TEMP_DIR", "").strip()
    return Path(given) if given else None
