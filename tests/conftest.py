"""What all tests share: seeds, a network that ends at this machine, the real assistant, a real browser on a real page."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm import Assistant, load_assistant

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "assets" / "examples"
LOOPBACK = {"127.0.0.1", "::1", "localhost", "0.0.0.0"}
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Everything runs offline; a connection to another machine is a mistake that fails at once."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise OSError(f"The tests are offline; something wanted {address[0]}.")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def assistant() -> Assistant:
    """The embedded preset with its real weights and the shipped adapter."""
    return load_assistant("embedded")


@pytest.fixture(scope="session")
def page_address(assistant: Assistant) -> Iterator[str]:
    """The real page over the real assistant, served on this machine."""
    from app import build_app, serve

    page = build_app(assistant)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(page, "127.0.0.1", port, prevent_thread_lock=True, quiet=True)
    yield f"http://127.0.0.1:{port}/"
    page.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        if os.environ.get("CI"):
            pytest.fail("CI needs chromium for the tests of the page.")
        pytest.skip("chromium is not installed")
    return found
