"""What all tests share: seeds, a network that ends at this machine, the real assistant, a real browser on a real page.

Heavy packages are imported where they are needed: with `-n`, a process that runs no test reads this file too."""

from __future__ import annotations

import gc
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vlm import Assistant
    from vlm.chat.search import Searcher
    from vlm.serving.accounts import Accounts
    from vlm.serving.serving import Serving
    from vlm.serving.uploads import Uploads

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


REAL = {"assistant", "page_address"}  # the fixtures that load the real models
LOADING = {"test_app", "test_browser", "test_embedded", "test_openai_real"}  # the files that use them
# What takes longest: begun in this order, the processes of `--dist loadfile` end together.
LONGEST = """
test_app test_browser test_embedded test_openai_real test_page test_distributed test_training test_speech test_translations
test_spaces test_align_training test_sizes test_signals test_notebook test_bootstrap test_search_tab
""".split()


def pytest_configure() -> None:
    """Before torch is imported here or in a program that a test starts.

    One thread: those of tiny matrices wait for each other longer than they work, ten times so on a busy machine.
    No certificates: nothing here leaves this machine, and httpx would read all of certifi's for each client."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """What needs the real models is slow, and what takes longest comes first."""
    for item in items:
        if REAL.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: [*LONGEST, item.path.stem].index(item.path.stem))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` the files that load the real models go to one process together, which loads them once."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "real" if Path(file).stem in LOADING else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


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


@pytest.fixture(autouse=True, scope="session")
def upload_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Gradio names an upload by its content: in a folder that two test processes share, what one deletes the other brings
    back."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's plot, which takes longer than a tiny training."""
    from training import finetune

    monkeypatch.setattr(finetune, "draw", lambda *_: None)


@pytest.fixture(scope="session")
def assistant() -> Iterator[Assistant]:
    """The embedded preset with its real weights and the shipped adapter."""
    from vlm import load_assistant

    with pytest.MonkeyPatch.context() as patched:
        # Two threads wait for each other at every layer, and longer where another worker has a core
        patched.setattr("vlm.engines.llama_library.usable_cores", lambda: 1)
        loaded = load_assistant("embedded")
    yield loaded
    loaded.close()


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The presets "one" and "two" are all that is shipped: the real encoder, a tiny language model, no adapter."""
    from tests.tiny import tiny_model
    from vlm import config

    language = tiny_model(lora=False).language
    for name in ("one", "two"):
        language.model.save_pretrained(tmp_path / name)  # type: ignore[operator]
        language.tokenizer.save_pretrained(tmp_path / name)
        text = f"name: {name}\nlanguage:\n  weights: {tmp_path / name}\n  dtype: float32\n"
        text += "answers:\n  max_new_tokens: 16\n"  # it seldom ends by itself
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(config, "PRESET_FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def serving(presets: Path) -> Serving:
    """The page's model, served by torch: the preset "one"."""
    from vlm import load_assistant
    from vlm.serving.environment import ServerSettings
    from vlm.serving.serving import Serving

    return Serving(load_assistant("one"), ServerSettings("one"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(
    serving: Serving,
    load_searcher: Callable[[], Searcher] | None = None,
    uploads: Uploads | None = None,
    accounts: Accounts | None = None,
    on_start: Callable[[Any], None] = lambda page: None,
    **options: Any,
) -> Iterator[str]:
    """The real page, on this machine; gives its address."""
    from gradio.routes import App

    from vlm.serving.launch import Site, start
    from vlm.serving.page import build_app
    from vlm.serving.shared_searcher import SharedSearcher, on_cpu

    serving.searcher = SharedSearcher(load_searcher or on_cpu)
    with pytest.MonkeyPatch.context() as patch:
        # Of the four apps that Gradio makes of a page it serves the last.
        patch.setattr(App, "create_app", staticmethod(lambda *_, **__: None))
        page = build_app(serving, **options)
    serving.settings = replace(serving.settings, port=free_port())
    try:
        start(Site(page, serving, uploads, accounts))
        on_start(page)
        yield f"http://127.0.0.1:{serving.settings.port}/"
    finally:
        page.close(verbose=False)


@pytest.fixture(scope="session")
def page_address(assistant: Assistant) -> Iterator[str]:
    """The real page over the real assistant."""
    from vlm.serving.serving import Serving

    serving = Serving(assistant)
    serving.model.presets = ["embedded"]  # which of them run here takes seconds to tell
    with served(serving) as address:
        yield address


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Any, chromium: str) -> Iterator[Any]:
    from tests.visiting import launch

    started = launch(playwright, chromium)
    yield started
    started.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    """For `tests.visiting.revisit`."""
    from tests.visiting import new_context

    opened = new_context(browser)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        if os.environ.get("CI"):
            pytest.fail("CI needs chromium for the tests of the page.")
        pytest.skip("chromium is not installed")
    return found
