"""What one person may ask for, by whichever route they come."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from tests.conftest import EXAMPLES, served
from tests.test_search_tab import search_serving
from tests.test_server import PUBLIC, calling, talking
from tests.test_tools import data_url, said, use
from tests.tiny_aligner import tiny_searcher
from vlm.serving.limits import TryLater
from vlm.serving.searches import Searches, SearchSession

pytestmark = pytest.mark.server

CAT = EXAMPLES / "cat.jpg"
NARROW = replace(PUBLIC, questions_a_minute=3, pictures_a_minute=2, search_pictures_a_minute=4, tools=True)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{colour}.png" for colour in ("red", "blue", "lime")]
    for path in paths:
        Image.new("RGB", (8, 8), path.stem).save(path)
    return list(map(str, paths))


@pytest.fixture
def public() -> Iterator[str]:
    """A server that counts, and that asks nobody for a password."""
    _, serving = talking(NARROW, words=1, seconds=0.0)
    with served(serving, load_searcher=tiny_searcher) as address:
        yield address


def test_searches_and_names_by_tools_count_with_questions(public: str) -> None:
    picture = data_url(CAT, "image/jpeg")
    found = use(public, "search", words="a cat", pictures=[picture])
    assert not found.isError
    assert not use(public, "classify", picture=picture, names="cat, dog").isError
    assert said(use(public, "text", question="Hello?")) == "done"
    for tool, arguments in (
        ("search", {"words": "a cat", "pictures": [picture]}),
        ("classify", {"picture": picture, "names": "cat, dog"}),
        ("text", {"question": "Hello?"}),
    ):
        refused = use(public, tool, **arguments)
        assert refused.isError
        assert "3 questions a minute" in refused.content[0].text  # type: ignore[union-attr]


def test_searches_and_names_by_the_api_count(public: str) -> None:
    client = Client(public, verbose=False)
    for _ in range(2):
        client.predict(handle_file(CAT), "cat, dog", api_name="/classify")
    with pytest.raises(AppError, match="2 pictures a minute"):
        client.predict(handle_file(CAT), "cat, dog", api_name="/classify")
    with pytest.raises(AppError, match="3 questions a minute"):
        client.predict("a cat", [handle_file(CAT)], api_name="/search")


def test_the_search_tab_counts_what_is_embedded_found_and_named(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("gradio.Warning", told.append)
    handlers = Searches(search_serving(NARROW))
    with calling("ann"):
        session = SearchSession()
        for _ in range(3):  # of 4 pictures a minute, the second three may still be sent
            handlers.take(session, pictures)
            list(handlers.embed(session))
        assert len(told) == 1 and "4 pictures for searches a minute" in told[0]
        handlers.find(session, "red", pictures[0])
        handlers.compare(pictures[0], "red, blue")
        with pytest.raises(TryLater, match="2 pictures a minute"):
            handlers.compare(pictures[0], "red, blue")
        with pytest.raises(TryLater, match="3 questions a minute"):
            handlers.find(session, "red", None)
    with calling("bob"):
        handlers.find(session, "red", None)


def test_on_ones_own_machine_nothing_is_counted(pictures: list[str]) -> None:
    own = replace(NARROW, auth=None)
    handlers, session = Searches(search_serving(own)), SearchSession()
    for _ in range(5):
        handlers.take(session, pictures)
        list(handlers.embed(session))
        assert handlers.find(session, "red", pictures[0])
        assert handlers.compare(pictures[0], "red, blue")


def test_what_is_wrong_with_a_search_costs_nothing() -> None:
    handlers = Searches(search_serving(NARROW))
    with calling("ann"):
        for _ in range(5):
            with pytest.raises(Exception, match="at least two names"):
                handlers.compare(str(CAT), "cat")
