"""The server as a process: started where a port is taken, told to stop, killed, and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from tests.conftest import EXAMPLES, ROOT, free_port
from tests.test_serving import wait_until

pytestmark = pytest.mark.slow


def start(tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("HOST", "AUTH", "SPACE_ID")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.talking_server"],
        cwd=ROOT,
        env=inherited | {"GRADIO_TEMP_DIR": str(tmp_path)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(tmp_path: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = str(free_port())
    server = start(tmp_path, PORT=port, **environment)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: is_up(server, address), 120)
        yield server, address
    finally:
        server.kill()
        server.wait()


def is_up(server: subprocess.Popen[str], address: str) -> bool:
    assert server.poll() is None, server.stdout.read() if server.stdout else ""
    try:
        return httpx.get(f"{address}health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_proxy_that_is_set_for_the_internet_is_not_asked_for_the_page(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"), nowhere)
    with running(tmp_path, no_proxy="", NO_PROXY="somewhere.example", **proxies):
        pass


def test_told_to_stop_it_lets_answers_end_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as (server, address):
        client = Client(address, verbose=False)
        httpx.post(f"{address}gradio_api/upload", files={"files": (EXAMPLES / "cat.jpg").open("rb")})
        assert list(tmp_path.rglob("cat.jpg"))
        job = client.submit("Hello?", api_name="/text")
        wait_until(lambda: bool(job.outputs()), 20)
        server.send_signal(signal.SIGTERM)
        assert job.result(timeout=30)[0] == "done"
        assert server.wait(30) == 0
    assert not list(tmp_path.glob("uploads-*"))


def test_told_twice_it_stops_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as (server, address):
        job = Client(address, verbose=False).submit("Hello?", api_name="/text")
        wait_until(lambda: bool(job.outputs()), 20)
        server.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.send_signal(signal.SIGINT)
        started = time.monotonic()
        server.wait(30)
        assert time.monotonic() - started < 20  # an answer under way would be given 30
    assert not list(tmp_path.glob("uploads-*"))


def test_what_a_killed_server_leaves_goes_at_the_next_start(tmp_path: Path) -> None:
    with running(tmp_path) as (server, address):
        httpx.post(f"{address}gradio_api/upload", files={"files": (EXAMPLES / "cat.jpg").open("rb")})
        server.send_signal(signal.SIGKILL)
        server.wait(10)
    assert list(tmp_path.rglob("cat.jpg"))
    with running(tmp_path):
        assert not list(tmp_path.rglob("cat.jpg"))


@pytest.mark.parametrize(
    ("name", "value", "said"), [("AUTH", "me", "AUTH is neither"), ("MCP", "false", "Address already")]
)
def test_what_keeps_it_from_starting_is_one_sentence(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1] if name == "MCP" else free_port())
        server = start(tmp_path, PORT=port, **{name: value})
        output, _ = server.communicate(timeout=120)
    assert server.returncode == 1
    (line,) = [line for line in output.splitlines() if "app.py:" in line]
    assert said in line
    assert "Traceback" not in output


def test_gradio_is_imported_without_parsing_each_of_its_components() -> None:
    count = (
        "import ast; parsed, parse = [], ast.parse\n"
        "ast.parse = lambda *given, **more: (parsed.append(given), parse(*given, **more))[1]\n"
        "import {}; print(sum('EVENTS' in str(source) for source, *_ in parsed))"
    )

    def parsed_by(module: str) -> int:
        command = [sys.executable, "-c", count.format(module)]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert parsed_by("app") <= 2 < parsed_by("gradio")  # a page of our own is read, and what was made of it
