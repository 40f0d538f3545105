"""The server as a process: started where a port is taken, told to stop, killed, and started again."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

import app
from tests.conftest import EXAMPLES, ROOT, free_port
from tests.test_serving import wait_until

pytestmark = pytest.mark.slow


OURS = ("HOST", "AUTH", "SPACE_ID")  # what a start reads, and a test alone sets


@contextmanager
def running(tmp_path: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server, and its address. What it says goes to the file `log`."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    port = str(free_port())
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.talking_server"],
            cwd=ROOT,
            env=inherited | {"GRADIO_TEMP_DIR": str(tmp_path), "PORT": port} | environment,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: is_up(server, address, tmp_path / "log"), 300)
        yield server, address
    finally:
        server.kill()
        server.wait()


def is_up(server: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    assert server.poll() is None, log.read_text()
    try:
        return httpx.get(f"{address}health").status_code == 200
    except httpx.TransportError:
        return False


def test_it_starts_without_parsing_each_of_gradios_components_and_told_twice_it_stops_at_once(
    tmp_path: Path,
) -> None:
    with running(tmp_path, WORDS="10000") as (server, address):
        log = (tmp_path / "log").read_text()
        assert "Components parsed: 2." in log  # a page of our own is read, and what was made of it
        assert list(tmp_path.glob("uploads-*"))
        job = Client(address, verbose=False).submit("Hello?", api_name="/text")
        wait_until(lambda: bool(job.outputs()))
        server.send_signal(signal.SIGINT)
        wait_until(lambda: "Stopping" in (tmp_path / "log").read_text())
        server.send_signal(signal.SIGINT)
        server.wait(20)  # an answer under way would be given 30
    assert not list(tmp_path.glob("uploads-*"))


def test_what_a_killed_server_leaves_goes_at_the_next_start_and_told_to_stop_it_lets_answers_end(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as (server, address):
        httpx.post(f"{address}gradio_api/upload", files={"files": (EXAMPLES / "cat.jpg").open("rb")})
        server.send_signal(signal.SIGKILL)
        server.wait(10)
    assert list(tmp_path.rglob("cat.jpg"))
    nowhere = f"http://127.0.0.1:{free_port()}"  # a proxy for the internet, which is not asked for the page
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"), nowhere)
    environment = proxies | {"no_proxy": "", "NO_PROXY": "somewhere.example", "UPLOADS_MB": "1"}
    person = ("ann", "secret")
    with running(tmp_path, AUTH=":".join(person), **environment) as (server, address):
        assert not list(tmp_path.rglob("cat.jpg"))
        wait_until(lambda: "Warming up." in (tmp_path / "log").read_text())
        assert httpx.get(f"{address}config").status_code == 401
        config = httpx.get(f"{address}config", auth=person)
        assert config.status_code == 200
        assert "Use this preset" not in str(config.json()["components"])  # which visitors do not choose
        large = {"files": b"x" * 2 * 2**20}
        full = httpx.post(f"{address}gradio_api/upload", files=large, auth=person)
        assert (full.status_code, "no room" in full.text) == (507, True)
        small = {"files": (EXAMPLES / "cat.jpg").open("rb")}
        httpx.post(f"{address}gradio_api/upload", files=small, auth=person)
        assert list(tmp_path.rglob("cat.jpg"))
        job = Client(address, verbose=False, httpx_kwargs={"auth": person}).submit("Hello?", api_name="/text")
        wait_until(lambda: bool(job.outputs()))
        server.send_signal(signal.SIGTERM)
        assert job.result(timeout=60)[0] == "done"
        assert server.wait(60) == 0
    assert not list(tmp_path.glob("uploads-*"))


@pytest.mark.parametrize(
    ("name", "value", "said"), [("AUTH", "me", "AUTH is neither"), ("MCP", "false", "Address already")]
)
def test_what_keeps_it_from_starting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    for each in OURS:
        monkeypatch.delenv(each, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1] if name == "MCP" else free_port())
        for each, given in (("PORT", port), (name, value)):
            monkeypatch.setenv(each, given)
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit, match=f"^app.py: .*{said}"):
                app.main()
        finally:
            signal.signal(signal.SIGTERM, before)
