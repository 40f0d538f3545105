"""Serving for long and to many: presets switched, questions that wait, memory that runs out, uploads of long ago."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from gradio_client import Client

from tests.conftest import EXAMPLES, served
from tests.talking import FakeAssistant
from vlm import Answer, Assistant, Settings, UserError
from vlm.engines import Prompt, Sampling
from vlm.inputs.speech import Heard
from vlm.serving.ahead import LOOK_UP_SECONDS
from vlm.serving.environment import ServerSettings
from vlm.serving.serving import Serving

pytestmark = pytest.mark.server

SHORT = Settings(max_new_tokens=4)


def fake_serving(assistant: FakeAssistant) -> Serving:
    return Serving(assistant, ServerSettings(assistant.name))  # type: ignore[arg-type]


def answered(serving: Serving, *question: Any) -> Answer:
    """The finished answer. Arguments as for `Serving.stream`."""
    *_, last = serving.stream(*question)
    return last


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> FakeAssistant:
    """What is loaded for the preset "two"."""
    assistant = FakeAssistant("two", parallel=1)
    for names in ("runnable_presets", "preset_names"):
        monkeypatch.setattr(f"vlm.serving.switch.{names}", lambda: ["one", "two"])
    monkeypatch.setattr("vlm.serving.switch.model_config_of", lambda *_: None)
    monkeypatch.setattr("vlm.serving.switch.load_assistant", lambda *_: assistant)
    return assistant


def reads_ahead(serving: Serving) -> bool:
    return serving._ahead._thread is not None


class Running:
    """A call in a thread of its own."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.results: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.results.append(function(*arguments)), daemon=True)
        self.thread.start()

    def result(self) -> Any:
        self.thread.join(60)
        (result,) = self.results
        return result


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_the_model_before_is_gone_and_the_next_one_answers(serving: Serving) -> None:
    before = weakref.ref(serving.assistant.engine)
    assert serving.model.presets == ["one", "two"]
    assert serving.assistant.answer("Hello?", settings=SHORT).model.endswith("one")
    serving.switch("two")
    assert before() is None
    assert serving.assistant.answer("Hello?", settings=SHORT).model.endswith("two")


@pytest.mark.slow
def test_a_preset_that_cannot_be_loaded_leaves_the_one_before(serving: Serving, presets: Path) -> None:
    (presets / "two" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="could not be loaded.*header.*download them again"):
        serving.switch("two")
    (presets / "two.yaml").write_text("adaptor: none\n")
    with pytest.raises(UserError, match="adaptor"):
        serving.switch("two")
    with pytest.raises(UserError, match="There are: one, two"):
        serving.switch("../two")
    assert (serving.model.preset, serving.assistant.config.name) == ("one", "one")
    assert serving.assistant.answer("Hello?", settings=SHORT).stage == "done"


@pytest.mark.slow
def test_memory_that_does_not_suffice_for_a_preset_is_freed_before_the_one_before_is_loaded(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.nn.Module]] = []
    loads = serving.model._load

    def too_large(*arguments: object) -> None:
        weights = torch.nn.Linear(2, 2)
        held.append(weakref.ref(weights))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def load(preset: str) -> None:
        assert not any(each() for each in held)
        with monkeypatch.context() as patched:
            if preset == "two":
                patched.setattr("vlm.chat.assistant.build_engine", too_large)
            loads(preset)

    monkeypatch.setattr(serving.model, "_load", load)
    with pytest.raises(UserError, match="too little memory for the preset 'two'.*smaller"):
        serving.switch("two")
    assert held and serving.assistant.answer("Hello?", settings=SHORT).model.endswith("one")


def test_a_change_of_the_model_and_a_stop_do_not_wait_for_what_is_read_ahead(two: FakeAssistant) -> None:
    serving = fake_serving(FakeAssistant("one"))
    one = serving.assistant
    serving.read_ahead("ann", ["a.png"], list)
    wait_until(lambda: one.under_way == [(["a.png"], [])])  # type: ignore[attr-defined]
    assert serving.answering == 0  # nobody is
    serving.switch("two")
    assert not one.under_way  # type: ignore[attr-defined]
    wait_until(lambda: two.under_way == [()])  # the other model is warmed up, the latest wish first
    serving.no_more_ahead("ann")
    serving.stop()
    assert serving.model.preset == "two" and not two.under_way
    serving.read_ahead("ann", ["a.png"], list)  # it takes no more questions
    time.sleep(2 * LOOK_UP_SECONDS)
    assert not two.under_way and not reads_ahead(serving)


@pytest.mark.slow
def test_the_adapter_of_the_start_comes_back_with_its_preset(
    two: FakeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, str | None]] = []
    monkeypatch.setattr("vlm.serving.switch.load_assistant", lambda *names: loaded.append(names) or two)
    chosen = Serving(FakeAssistant("one"), ServerSettings("one", "runs/mine/adapter"))  # type: ignore[arg-type]
    chosen.switch("two")
    chosen.switch("one")
    assert loaded == [("two", None), ("one", "runs/mine/adapter")]


def test_as_many_answers_run_at_once_as_the_engine_decodes_together() -> None:
    assistant = FakeAssistant("one", parallel=3)
    serving = fake_serving(assistant)
    asked = [Running(answered, serving, "Hello?") for _ in range(5)]
    wait_until(lambda: len(assistant.under_way) == 3)
    time.sleep(0.3)
    assert len(assistant.under_way) == 3
    assistant.go_on.set()
    assert [each.result().text for each in asked] == ["one"] * 5
    assert not assistant.under_way


@pytest.mark.slow
def test_a_switch_waits_for_the_answers_under_way_and_later_questions_wait_for_the_switch(
    two: FakeAssistant,
) -> None:
    one = FakeAssistant("one")
    serving = fake_serving(one)
    early = [Running(answered, serving, "Hello?") for _ in range(2)]
    wait_until(lambda: len(one.under_way) == 2)
    switching = Running(serving.switch, "two")
    wait_until(lambda: len(serving._gate._line) == 1)
    late = [Running(answered, serving, "Hello?") for _ in range(3)]
    time.sleep(0.3)
    assert (serving.model.preset, len(one.under_way), one.closed) == ("one", 2, False)
    one.go_on.set()
    switching.result()
    assert one.closed
    wait_until(lambda: len(two.under_way) == 1)
    time.sleep(0.3)
    assert len(two.under_way) == 1  # this engine takes one at a time
    two.go_on.set()
    assert [each.result().text for each in early + late] == ["one"] * 2 + ["two"] * 3


@pytest.mark.slow
def test_a_question_that_waits_can_be_given_up_and_one_that_is_stopped_makes_room() -> None:
    assistant = FakeAssistant("one", parallel=1)
    serving = fake_serving(assistant)
    first, given_up, next_one = (serving.stream("Hello?") for _ in range(3))
    assert next(first).text
    for waiting in (given_up, next_one):
        snapshot = next(waiting)
        assert (snapshot.stage, snapshot.text) == ("waiting", "")
        assert 0 < snapshot.seconds["wait"] < 600
    given_up.close()
    first.close()
    assert not assistant.under_way
    assert next(next_one) == Answer(text="one")


def test_what_was_heard_is_known_while_the_question_waits_for_its_turn() -> None:
    assistant = FakeAssistant("one", parallel=1)
    assistant.hear = lambda *_: Heard("What is this?", 1.0, 0.1)  # type: ignore[attr-defined]
    serving = fake_serving(assistant)
    with closing(serving.stream("Hello?")) as first, closing(serving.stream("", (), "spoken.wav")) as spoken:
        assert next(first).text
        stages = [(each.stage, each.transcript) for each in islice(spoken, 3)]
    heard = "What is this?"
    assert stages == [("transcribing", None), ("transcribing", heard), ("waiting", heard)]


def test_an_answer_that_fails_leaves_its_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant = FakeAssistant("one", parallel=1)
    serving = fake_serving(assistant)
    with monkeypatch.context() as patched:
        patched.setattr(assistant, "stream", lambda *_: iter([][0]))
        with pytest.raises(IndexError):
            answered(serving, "Hello?")
    assistant.go_on.set()
    assert answered(serving, "Hello?").text == "one"


@pytest.mark.slow
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
    assert "training.finetune --preset mine.yaml" in shown and "with the line model: one" in shown


def test_a_space_shows_no_switch(serving: Serving) -> None:
    with served(serving, switchable=False) as address:
        assert "Use this preset" not in str(Client(address, verbose=False).config["components"])


def test_memory_that_runs_out_is_a_plain_message_and_the_next_question_works(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant: Assistant = serving.assistant
    engine, emptied = assistant.engine, []
    stream = engine.stream

    def fail_once(prompt: Prompt, adapter: bool, sampling: Sampling) -> Iterator[int]:
        monkeypatch.setattr(engine, "stream", stream)
        yield from islice(stream(prompt, adapter, sampling), 1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(engine, "stream", fail_once)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    answer = assistant.stream("Hello?", settings=SHORT)
    assert next(answer).text
    with pytest.raises(UserError, match="too little memory for this answer.*shorter"):
        next(answer)
    assert emptied
    assert assistant.answer("Hello?", settings=SHORT).stage == "done"
