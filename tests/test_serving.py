"""Serving for long and to many: presets switched, memory that runs out, a full queue, uploads of long ago."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.client import Job, Status

from tests.conftest import EXAMPLES, served
from vlm import Answer, Assistant, Settings, UserError
from vlm.serving.switch import Serving
from vlm.serving.zero_gpu import gpu_seconds

SHORT = Settings(max_new_tokens=4)


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_model_before_is_gone_and_the_next_one_answers(serving: Serving) -> None:
    before = weakref.ref(serving.assistant.model)
    assert serving.presets == ["one", "two"]
    assert serving.assistant.answer("Hello?", settings=SHORT).model.endswith("one")
    serving.switch("two")
    assert before() is None
    assert serving.assistant.answer("Hello?", settings=SHORT).model.endswith("two")


def test_a_preset_that_cannot_be_loaded_leaves_the_one_before(serving: Serving, presets: Path) -> None:
    (presets / "two" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="could not be loaded.*header.*download them again"):
        serving.switch("two")
    (presets / "two.yaml").write_text("adaptor: none\n")
    with pytest.raises(UserError, match="adaptor"):
        serving.switch("two")
    with pytest.raises(UserError, match="There are: one, two"):
        serving.switch("../two")
    assert (serving.preset, serving.assistant.config.name) == ("one", "one")
    assert serving.assistant.answer("Hello?", settings=SHORT).stage == "done"


def test_memory_that_does_not_suffice_for_a_preset_is_freed_before_the_one_before_is_loaded(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.nn.Module]] = []
    loads = serving._load

    def too_large(*arguments: object) -> None:
        weights = torch.nn.Linear(2, 2)
        held.append(weakref.ref(weights))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def load(preset: str) -> None:
        assert not any(each() for each in held)
        with monkeypatch.context() as patched:
            if preset == "two":
                patched.setattr("vlm.chat.assistant.build_model", too_large)
            loads(preset)

    monkeypatch.setattr(serving, "_load", load)
    with pytest.raises(UserError, match="too little memory for the preset 'two'.*smaller"):
        serving.switch("two")
    assert held and serving.assistant.answer("Hello?", settings=SHORT).model.endswith("one")


def test_the_adapter_of_the_start_comes_back_with_its_preset(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, str | None]] = []
    monkeypatch.setattr("vlm.serving.switch.model_config_of", lambda *_: None)
    monkeypatch.setattr("vlm.serving.switch.load_assistant", lambda *names: loaded.append(names) or serving)
    chosen = Serving(serving.assistant, "one", "runs/mine/adapter")
    chosen.switch("two")
    chosen.switch("one")
    assert loaded == [("two", None), ("one", "runs/mine/adapter")]


def test_without_an_adapter_it_chats_and_says_how_to_let_it_see(serving: Serving) -> None:
    assert serving.assistant.answer("Hello?", settings=SHORT).text
    spoken = serving.assistant.answer(audio=EXAMPLES / "why-is-the-sky-blue.wav", settings=SHORT)
    assert "sky" in (spoken.transcript or "")
    with pytest.raises(UserError, match="Train one with python -m training.finetune, or name one"):
        serving.assistant.answer("What is this?", [EXAMPLES / "cat.jpg"])


def test_the_page_offers_the_switch_and_tells_how_to_train(serving: Serving) -> None:
    with served(serving) as address:
        shown = str(Client(address, verbose=False).config["components"])
    assert "Use this preset" in shown
    assert "training.finetune --preset one" in shown


def test_a_space_shows_no_switch(serving: Serving) -> None:
    with served(serving, switchable=False) as address:
        assert "Use this preset" not in str(Client(address, verbose=False).config["components"])


def test_whoever_comes_to_a_full_queue_is_asked_to_try_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.MAX_WAITING", 1)
    go_on, stream = threading.Event(), serving.assistant.stream

    def wait_and_stream(*arguments: Any) -> Iterator[Answer]:
        assert go_on.wait(60)
        yield from stream(*arguments)

    monkeypatch.setattr(serving.assistant, "stream", wait_and_stream)
    with served(serving) as address:
        client = Client(address, verbose=False)

        def ask() -> Job:
            return client.submit("Hello?", max_new_tokens=16, api_name="/text")

        answered = [ask()]
        wait_until(lambda: answered[0].status().code is Status.PROCESSING)
        answered.append(ask())
        wait_until(lambda: answered[1].status().rank == 0)  # its place in the queue
        refused = ask().exception(timeout=60)
        go_on.set()
        assert "full" in str(refused)
        assert all(job.result(timeout=60)[0] for job in answered)


def test_uploads_are_deleted_after_their_time(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr("app.KEEP_UPLOADS_SECONDS", 3)
    monkeypatch.setattr("app.LOOK_FOR_OLD_UPLOADS_SECONDS", 1)
    with served(serving) as address:
        picture = {"files": (EXAMPLES / "coffee.jpg").open("rb")}
        (uploaded,) = httpx.post(f"{address}gradio_api/upload", files=picture).json()
        assert Path(uploaded).is_relative_to(tmp_path)
        assert Path(uploaded).read_bytes() == (EXAMPLES / "coffee.jpg").read_bytes()
        wait_until(lambda: not Path(uploaded).exists())


def test_memory_that_runs_out_is_a_plain_message_and_the_next_question_works(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant: Assistant = serving.assistant
    model, emptied = assistant.model.language.model, []
    generate = model.generate  # type: ignore[operator]

    def fail_once(*arguments: object, **options: object) -> None:
        model.generate = generate  # type: ignore[assignment]
        options["streamer"].put(torch.tensor([7]))  # type: ignore[attr-defined]
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(model, "generate", fail_once)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    answer = assistant.stream("Hello?", settings=SHORT)
    assert next(answer).text
    with pytest.raises(UserError, match="too little memory for this answer.*shorter"):
        next(answer)
    assert emptied
    assert assistant.answer("Hello?", settings=SHORT).stage == "done"


def test_a_longer_answer_asks_zero_gpu_for_more_time() -> None:
    asked = [gpu_seconds(None, "", (), (), Settings(tokens)) for tokens in (16, 200, 1024)]  # type: ignore[arg-type]
    assert asked == sorted(set(asked))
    assert asked[-1] <= 120
