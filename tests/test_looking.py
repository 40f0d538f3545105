"""Where it looked, among other people's questions: it takes a place, counts, and ends when nobody looks on."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.conftest import EXAMPLES
from tests.test_server import PUBLIC, calling, talking
from vlm import Answer
from vlm.chat.conversation import Conversation, Exchange
from vlm.chat.occlusion import Look
from vlm.serving import looking
from vlm.serving.callers import CALLER, Caller
from vlm.serving.looking import Looking

CLICKED: Any = SimpleNamespace(at=0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the page warns of. A look has a few steps and then a picture."""

    def looks(*_: Any) -> Iterator[Look]:
        yield from (Look("cat", 0.9, number / 4) for number in range(4))
        yield Look("cat", 0.9, 1.0, Image.new("RGB", (8, 8)))

    told: list[str] = []
    monkeypatch.setattr(looking, "_looks", looks)
    monkeypatch.setattr("gradio.Warning", told.append)
    return told


def looking_of(serving: Any) -> Any:
    """Its `look`, without a copy of the browser's."""
    looks = Looking(serving)
    return SimpleNamespace(look=lambda conversation, clicked: looks.look(conversation, None, clicked))


def conversation() -> Conversation:
    exchange = Exchange(
        "What is this?", (str(EXAMPLES / "cat.jpg"),), answer=Answer(text="A cat.", stage="done")
    )
    return Conversation([exchange])


def test_a_look_waits_for_a_place_and_takes_one(said: list[str]) -> None:
    _, serving = talking(parallel=1, seconds=0.0)
    with closing(serving.stream("Hello?")) as question:
        next(question)
        look = looking_of(serving).look(conversation(), CLICKED)
        assert "Waiting, about" in next(look)
    while "Waiting" in (shown := next(look)):
        pass
    assert "Looking for “cat”" in shown and serving.answering == 1
    with closing(serving.stream("Hello?")) as question:
        assert next(question).stage == "waiting"
    assert "The bright parts look like “cat” to the model (" in list(look)[-1]
    assert serving.answering == serving.waiting == 0
    assert not said


def test_one_look_at_a_time_while_questions_are_answered_beside_it(said: list[str]) -> None:
    _, serving = talking(words=1, parallel=4, seconds=0.0)
    looks = looking_of(serving).look(conversation(), CLICKED)
    assert "Looking for “cat”" in next(looks)
    other = looking_of(serving).look(conversation(), CLICKED)
    assert "Waiting, about" in next(other) and serving.waiting == 1
    assert [*serving.stream("Hello?")][-1].stage == "done"
    assert "Waiting, about" in next(other)
    assert "The bright parts look like" in list(looks)[-1]
    assert "The bright parts look like" in list(other)[-1]
    assert serving.answering == serving.waiting == 0 and not said


def test_of_an_answer_about_several_pictures_each_is_looked_through_for_what_was_said_of_it(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[str, str]] = []

    def looks(_: Any, picture: str, words: str) -> Iterator[Look]:
        looked.append((Path(picture).name, words))
        yield Look(words, 0.9, 0.5)
        yield Look(words, 0.9, 1.0, Image.new("RGB", (8, 8)))

    monkeypatch.setattr(looking, "_looks", looks)
    _, serving = talking(seconds=0.0)
    pictures = tuple(str(EXAMPLES / name) for name in ("cat.jpg", "laptop.jpg"))
    answer = Answer(text="First picture: A cat.\nSecond picture: A laptop.", stage="done")
    earlier = conversation().exchanges[0]
    asked = Conversation([earlier, Exchange("What are these?", pictures, answer=answer)])
    *_, between, last = looking_of(serving).look(asked, SimpleNamespace(at=1))  # type: ignore[arg-type]
    assert looked == [("cat.jpg", "A cat."), ("laptop.jpg", "A laptop.")]
    assert (between.count("<img"), last.count("<img")) == (1, 2) and "Looking for “A laptop.”" in between
    list(looking_of(serving).look(asked, CLICKED))
    assert looked[2:] == [("cat.jpg", "A cat.")]


def test_of_an_answer_of_another_model_it_says_so(said: list[str]) -> None:
    assistant, serving = talking(seconds=0.0)
    assistant.adapter = "mine"  # type: ignore[attr-defined]
    for preset, adapter, told in (("tiny", "mine", 0), ("tiny", "other", 1), ("phi-3.5", "mine", 1)):
        asked = conversation()
        answer = replace(asked.exchanges[0].answer or Answer(), preset=preset, adapter=adapter)
        asked.exchanges[0] = replace(asked.exchanges[0], answer=answer)
        list(looking_of(serving).look(asked, CLICKED))
        assert len(said) == told and all("Another model answers now" in each for each in said)
        said.clear()


def test_a_look_ends_when_the_visitor_leaves_before_its_turn_or_within(said: list[str]) -> None:
    _, serving = talking(parallel=1, seconds=0.0)
    for steps in (1, 2):
        heard = count()
        token = CALLER.set(Caller("ann", lambda heard=heard, steps=steps: next(heard) < steps))
        try:
            shown = list(looking_of(serving).look(conversation(), CLICKED))
        finally:
            CALLER.reset(token)
        assert len(shown) == steps + 1 and shown[-1] == "" and "nobody" in said.pop()
        assert serving.answering == serving.waiting == 0
    with closing(serving.stream("Hello?")) as question:
        next(question)
        look = looking_of(serving).look(conversation(), CLICKED)
        next(look)
        assert serving.waiting == 1
        look.close()  # type: ignore[attr-defined]
        assert serving.waiting == 0


def test_looks_count_with_the_person_s_questions_and_pictures(said: list[str]) -> None:
    _, serving = talking(replace(PUBLIC, questions_a_minute=3, pictures_a_minute=2), words=1, seconds=0.0)
    with calling("ann"):
        for _ in range(2):
            assert (
                "The bright parts look like “cat” to the model ("
                in list(looking_of(serving).look(conversation(), CLICKED))[-1]
            )
        assert list(looking_of(serving).look(conversation(), CLICKED)) == [""]
    assert "2 pictures a minute" in said[0]


def test_a_server_that_is_being_stopped_waits_for_a_look_and_takes_no_more(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.serving.serving.CUT_OFF_SECONDS", 0.1)
    _, serving = talking(parallel=1, seconds=0.0)
    serving.settings = replace(serving.settings, stop_seconds=0)
    look = looking_of(serving).look(conversation(), CLICKED)
    next(look)
    assert not serving.stop()
    look.close()  # type: ignore[attr-defined]
    assert serving.stop()
    assert list(looking_of(serving).look(conversation(), CLICKED)) == [""] and "being stopped" in said[0]
