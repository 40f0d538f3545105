"""The Search tab and its endpoints over an aligner that knows colours: by API, by handler, and in headless Chromium."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.conftest import served
from tests.test_serving import FakeAssistant, fake_serving
from tests.tiny_aligner import COLOURS, TinyAligner, tiny_searcher
from tests.visiting import drop_on, revisit, visit
from vlm import Searcher, UserError
from vlm.chat import indexing
from vlm.chat.conversation import Composed, Conversation, Exchange
from vlm.chat.index import Report
from vlm.serving import received, searches
from vlm.serving.environment import ServerSettings
from vlm.serving.searches import WITHOUT_PICTURES, Searches, SearchSession, progress_bar
from vlm.serving.serving import Serving
from vlm.serving.shared_searcher import SharedSearcher
from vlm.serving.uploads import NoRoom


def search_serving(
    settings: ServerSettings | None = None, load: Callable[[], Searcher] = tiny_searcher
) -> Serving:
    serving = Serving(FakeAssistant("one"), settings=settings)  # type: ignore[arg-type]
    serving.searcher = SharedSearcher(load)
    return serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for colour in COLOURS:
        Image.new("RGB", (64, 48), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searches:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return Searches(search_serving())


def added(handlers: Searches, session: SearchSession, *files: Path) -> str:
    """Embed the files; gives what the tab says then."""
    handlers.take(session, [str(file) for file in files])
    list(handlers.embed(session))
    return plain(handlers.settle(session)[0])


def plain(report: str) -> str:
    """What a report says, without its tags."""
    return re.sub("<.+?>", "", report)


def captions(shown: list[Any]) -> list[str]:
    return [caption for _, caption in shown[0]["value"]]


def click(place: int) -> gr.SelectData:
    return SimpleNamespace(index=place)  # type: ignore[return-value]


def test_what_was_found_while_pictures_were_read_stays_when_they_are(
    handlers: Searches, folder: Path
) -> None:
    session = SearchSession()
    added(handlers, session, *folder.iterdir())
    handlers.take(session, [str(next(folder.iterdir()))])
    handlers.find(session, "red", None)
    handlers.choose(session, click(0))
    list(handlers.embed(session))
    _, _, gallery, ask = handlers.settle(session)
    assert gallery == ask == gr.skip() and session.chosen
    *_, words, picture = handlers.start_over(session)
    assert (words, picture) == ("", None)
    added(handlers, session, *folder.iterdir())
    assert handlers.settle(session)[2]["visible"]


def test_what_is_searched_for_while_pictures_are_read_is_found_among_all_of_them(
    handlers: Searches, folder: Path
) -> None:
    session = SearchSession()
    added(handlers, session, folder / "blue.png")
    handlers.take(session, [str(folder / "red.png")])
    assert captions(handlers.find(session, "red", None))[0].endswith("blue.png")
    list(handlers.embed(session))
    assert captions(handlers.settle(session)[2:]) == captions(handlers.find(session, "red", None))
    assert captions(handlers.find(session, "red", None))[0] == "1.00 · red.png"


# The handlers


def test_pictures_are_embedded_with_a_bar_and_found_by_words(handlers: Searches, folder: Path) -> None:
    session = SearchSession()
    handlers.take(session, [str(path) for path in sorted(folder.iterdir())])
    grown = list(handlers.embed(session))
    assert 'value="8" max="8"' in grown[-1]
    report, _, gallery, _ = handlers.settle(session)
    assert "8 pictures in the index (8 new)." in report
    assert len(gallery["value"]) == 8
    shown = handlers.find(session, "something lime", None)
    assert captions(shown)[0].endswith(" · lime.png")
    assert shown[0]["value"][0][0] == str(folder / "lime.png")


def test_the_gallery_shows_a_large_picture_smaller_and_the_question_is_about_all_of_it(
    handlers: Searches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, large = SearchSession(), tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large)
    added(handlers, session, large)
    ((shown, _),) = handlers.find(session, "noise", None)[0]["value"]
    assert Path(shown).stat().st_size < large.stat().st_size / 4
    with Image.open(shown) as small:
        assert max(small.size) == 800
    assert handlers.find(session, "noise", None)[0]["value"][0][0] == shown  # made once
    session.small.clear()
    with monkeypatch.context() as patch:
        patch.setattr(received, "save_pil_to_cache", Mock(side_effect=NoRoom))
        assert handlers.find(session, "noise", None)[0]["value"][0][0] == str(large)
    handlers.choose(session, click(0))
    assert handlers.ask_about(session, None)[0]["files"] == [str(large)]


def test_a_picture_that_browsers_do_not_show_is_a_card_where_there_is_no_room_for_a_copy(
    handlers: Searches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.tiff")
    monkeypatch.setattr(received, "save_pil_to_cache", Mock(side_effect=NoRoom))
    session = SearchSession()
    assert "1 picture in the index" in added(handlers, session, tmp_path / "red.tiff")
    ((shown, caption),) = handlers.find(session, "red", None)[0]["value"]
    assert isinstance(shown, Image.Image) and caption.endswith("red.tiff")


def test_the_bar_says_how_long_it_will_take() -> None:
    bar = progress_bar(Report(total=40, done=10), 5.0)
    assert 'value="10" max="40"' in bar
    assert "10 of 40 pictures, about 15 s left" in bar


def test_pictures_in_a_zip_are_found_under_their_names(
    handlers: Searches, folder: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"holiday/{path.name}")
        archive.writestr("holiday/bad.png", b"no picture")
    session = SearchSession()
    said = added(handlers, session, tmp_path / "all.zip")
    assert "8 pictures in the index (8 new)." in said and 'The picture "bad.png" is not a picture' in said
    (path, caption), *_ = handlers.find(session, "blue", None)[0]["value"]
    assert caption.endswith(" · blue.png")
    assert Path(path).is_relative_to(tmp_path / "uploads")


def test_more_pictures_are_added_and_the_same_ones_are_kept_once(handlers: Searches, folder: Path) -> None:
    session = SearchSession()
    added(handlers, session, folder / "red.png")
    said = added(handlers, session, folder / "red.png", folder / "blue.png")
    assert "2 pictures in the index (1 new). 1 has the same content as one already there (red.png)." in said


def test_what_was_embedded_before_a_stop_stays(
    handlers: Searches, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH", 3)
    session = SearchSession()
    handlers.take(session, [str(path) for path in folder.iterdir()])
    grown = handlers.embed(session)
    next(grown)
    with pytest.raises(UserError, match="Pictures are being read. Load the index when that is done"):
        handlers.load(session, "kept.safetensors")
    grown.close()  # type: ignore[attr-defined]
    report = plain(handlers.stop(session)[0])
    assert "3 pictures in the index (3 new). 5 were not looked at" in report
    assert handlers.find(session, "red", None)


def test_pictures_that_come_while_others_are_embedded_wait_for_their_turn(
    handlers: Searches, folder: Path
) -> None:
    session = SearchSession()
    handlers.take(session, [str(folder / "red.png")])
    first = handlers.embed(session)
    next(first)
    handlers.take(session, [str(folder / "blue.png")])
    assert not list(first)
    assert handlers.settle(session)[1]["interactive"]
    second = handlers.embed(session)
    next(second)
    assert handlers.settle(session)[1]["interactive"]  # what is told of the first comes late
    assert not handlers.stop(session)[1]["interactive"]
    list(second)
    report, stop, *_ = handlers.settle(session)
    assert "2 pictures in the index" in report and not stop["interactive"]
    handlers.take(session, [str(folder / "lime.png")])
    handlers.stop(session)
    assert not list(handlers.embed(session))


def test_a_failure_is_said_and_what_was_embedded_stays(
    handlers: Searches, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    session = SearchSession()
    added(handlers, session, folder / "red.png")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    assert "1 picture in the index" in added(handlers, session, tmp_path / "bad.zip")
    assert said == ['The zip "bad.zip" is damaged or no zip. Make it again, or choose its pictures.']
    aligner = handlers.serving.searcher.get().aligner
    monkeypatch.setattr(aligner, "embed_pictures", lambda images: 1 / 0)
    added(handlers, session, folder / "blue.png")
    assert "Something went wrong" in said[-1] and session.index is not None and len(session.index) == 1


def test_a_clicked_picture_goes_to_the_image_tab_beside_what_is_there(
    handlers: Searches, folder: Path
) -> None:
    session = SearchSession()
    added(handlers, session, *folder.iterdir())
    handlers.find(session, "cyan", None)
    assert handlers.choose(session, click(0))["visible"]
    composed, tabs = handlers.ask_about(session, {"text": "What?", "files": ["a.png"]})
    assert composed == {"text": "What?", "files": ["a.png", str(folder / "cyan.png")]}
    assert tabs.selected == "Image"


def test_pictures_like_the_last_one_of_the_image_tab_are_found(handlers: Searches, folder: Path) -> None:
    session = SearchSession()
    with pytest.raises(UserError, match="on the Search tab first"):
        handlers.find_similar(session, Conversation([Exchange("What?", ("a.png",))]), None)
    added(handlers, session, *folder.iterdir())
    asked = Conversation([Exchange("What?", (str(folder / "red.png"),))])
    gallery, _, opened, words, picture, tabs = handlers.find_similar(session, asked, None)
    assert gallery["value"][0][1] == "1.00 · red.png"
    assert (words, picture, tabs.selected) == ("", str(folder / "red.png"), "Search") and opened["open"]
    composed: Composed = {"text": "", "files": [str(folder / "blue.png")]}
    gallery, *_ = handlers.find_similar(session, asked, composed)
    assert gallery["value"][0][1] == "1.00 · blue.png"
    with pytest.raises(UserError, match="add a picture first"):
        handlers.find_similar(session, Conversation(), None)


def test_a_saved_index_is_searched_later_and_its_pictures_are_recognised(
    handlers: Searches, folder: Path
) -> None:
    session = SearchSession()
    added(handlers, session, *folder.iterdir())
    file = handlers.save(session)
    later = SearchSession()
    report = handlers.load(later, file)[0]
    assert "8 pictures in the index (8 new)." in report and WITHOUT_PICTURES in report
    shown = handlers.find(later, "red", None)
    assert captions(shown)[0].endswith("red.png")
    assert isinstance(shown[0]["value"][0][0], Image.Image)  # a card in place of the picture
    handlers.choose(later, click(0))
    with pytest.raises(UserError, match="came without its pictures"):
        handlers.ask_about(later, None)
    aligner = handlers.serving.searcher.get().aligner
    assert isinstance(aligner, TinyAligner)
    before = aligner.embedded
    added(handlers, later, *folder.iterdir())
    assert aligner.embedded == before
    report = handlers.settle(later)[0]
    assert (
        "8 pictures in the index." in report
        and "same content" not in report
        and WITHOUT_PICTURES not in report
    )
    assert handlers.find(later, "red", None)[0]["value"][0][0] == str(folder / "red.png")


def test_an_index_of_another_aligner_is_refused_and_what_is_there_stays(
    handlers: Searches, folder: Path, tmp_path: Path
) -> None:
    tiny_searcher("another").index([folder / "red.png"], tmp_path / "other.safetensors")
    session = SearchSession()
    added(handlers, session, folder / "blue.png")
    with pytest.raises(UserError, match="by the aligner another, and the one in use is tiny"):
        handlers.load(session, str(tmp_path / "other.safetensors"))
    assert session.index is not None and len(session.index) == 1


def test_a_saved_index_tells_nothing_of_the_server(handlers: Searches, folder: Path) -> None:
    session = SearchSession()
    added(handlers, session, folder / "red.png")
    assert str(folder).encode() not in Path(handlers.save(session)).read_bytes()


def test_a_path_in_a_loaded_index_opens_no_file(handlers: Searches, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "local.safetensors"
    tiny_searcher().index([folder / "red.png"], file)  # its entry is the path of a file that is there
    session = SearchSession()
    handlers.load(session, str(file))
    assert isinstance(handlers.find(session, "red", None)[0]["value"][0][0], Image.Image)


def test_how_much_is_held_is_bounded(
    handlers: Searches, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    one, two = SearchSession(), SearchSession()
    added(handlers, one, *folder.iterdir())
    monkeypatch.setattr(searches, "MAX_HELD_BYTES", 4 * 8 * 10)
    one.reading = True  # what is being read makes no room
    added(handlers, two, *folder.iterdir())
    one.reading = False
    monkeypatch.setattr(searches, "MAX_INDEXED", 8)
    added(handlers, one, folder / "red.png")
    monkeypatch.setattr(received, "MAX_INDEXED", 3)
    added(handlers, SearchSession(), *folder.iterdir())
    monkeypatch.setattr(received, "MAX_BYTES_AT_ONCE", 10)
    added(handlers, SearchSession(), *folder.iterdir())
    for sentence, part in zip(said, ("all visitors", "at most 8", "more than 3 pictures", "MB"), strict=True):
        assert part in sentence


def test_the_index_that_was_used_least_lately_makes_room_and_its_visitor_is_told(
    handlers: Searches, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "MAX_HELD_BYTES", 4 * 8 * 20)
    closed, used, new = SearchSession(), SearchSession(), SearchSession()
    added(handlers, closed, *folder.iterdir())
    added(handlers, used, *folder.iterdir())
    handlers.find(closed, "red", None)
    handlers.find(used, "red", None)
    assert "8 pictures in the index" in added(handlers, new, *folder.iterdir())
    assert closed.index is None and handlers.find(used, "red", None) and handlers.find(new, "red", None)
    conversation = Conversation([Exchange("What?", (str(folder / "red.png"),))])
    for tried in (
        lambda: handlers.find(closed, "red", None),
        lambda: handlers.find_similar(closed, conversation, None),
        lambda: handlers.save(closed),
    ):
        with pytest.raises(UserError, match="had to make room for those of others"):
            tried()
    told: list[str] = []
    monkeypatch.setattr(searches.gr, "Warning", told.append)
    added(handlers, closed, folder / "red.png")
    assert told == [searches.LET_GO]
    assert captions(handlers.find(closed, "red", None)) == ["1.00 · red.png"]


def test_starting_over_forgets_everything(handlers: Searches, folder: Path) -> None:
    session = SearchSession()
    added(handlers, session, *folder.iterdir())
    handlers.start_over(session)
    assert session.index is None and not session.files and not session.shown
    with pytest.raises(UserError, match="no pictures to search in"):
        handlers.find(session, "red", None)
    with pytest.raises(UserError, match="no index to save"):
        handlers.save(session)


def test_a_format_that_browsers_do_not_show_is_converted(handlers: Searches, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.tiff")
    session = SearchSession()
    added(handlers, session, tmp_path / "red.tiff")
    (path, caption), *_ = handlers.find(session, "red", None)[0]["value"]
    assert path.endswith(".png") and caption.endswith("red.tiff")
    assert Path(path).is_relative_to(tmp_path / "uploads")


def test_a_name_cannot_bring_markup_into_the_report(handlers: Searches, tmp_path: Path) -> None:
    bad = tmp_path / "<img src=x>.png"
    bad.write_bytes(b"no picture")
    session = SearchSession()
    added(handlers, session, bad)
    assert "<img" not in handlers.settle(session)[0]


def test_weights_that_are_missing_are_said_and_looked_for_again() -> None:
    there = False

    def load() -> Searcher:
        if not there:
            raise UserError("The aligner is missing. Install it.")
        return tiny_searcher()

    handlers = Searches(search_serving(load=load))
    assert "The aligner is missing. Install it." in handlers.look_whether_it_loads()["value"]
    there = True
    assert not handlers.look_whether_it_loads()["visible"]


@pytest.mark.slow
@pytest.mark.server
def test_the_aligner_is_loaded_once_and_not_at_the_start(folder: Path) -> None:
    loaded: list[Searcher] = []

    def load() -> Searcher:
        loaded.append(tiny_searcher())
        return loaded[-1]

    with served(fake_serving(FakeAssistant("one")), load_searcher=load) as address:
        client = Client(address, verbose=False)
        assert not loaded
        for _ in range(2):
            client.predict(handle_file(folder / "red.png"), "red, blue", api_name="/classify")
    assert len(loaded) == 1


# The endpoints


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(fake_serving(FakeAssistant("one")), load_searcher=tiny_searcher) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


@pytest.mark.server
def test_the_api_finds_pictures_by_words_and_by_a_picture(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    files = [handle_file(path) for path in sorted(folder.iterdir())]
    found = client.predict("lime", files, None, None, 2, api_name="/search")
    assert [each["picture"] for each in found][0] == "lime.png"
    assert len(found) == 2 and found[0]["score"] >= found[1]["score"]
    like = client.predict("", files, handle_file(folder / "red.png"), api_name="/search")
    assert like[0] == {"picture": "red.png", "score": 1.0}
    (tmp_path / "bad.png").write_bytes(b"no picture")
    *_, left_out = client.predict("lime", [*files, handle_file(tmp_path / "bad.png")], api_name="/search")
    assert left_out["picture"] == "bad.png" and "is not a picture" in left_out["problem"]


@pytest.mark.server
def test_the_api_searches_in_a_saved_index(client: Client, folder: Path, tmp_path: Path) -> None:
    tiny_searcher().index(list(folder.iterdir()), tmp_path / "kept.safetensors")
    found = client.predict("blue", [], None, handle_file(tmp_path / "kept.safetensors"), api_name="/search")
    assert found[0]["picture"] == str(folder / "blue.png")
    tiny_searcher("another").index(list(folder.iterdir()), tmp_path / "other.safetensors")
    with pytest.raises(AppError, match="another, and the one in use is tiny"):
        client.predict("blue", [], None, handle_file(tmp_path / "other.safetensors"), api_name="/search")


@pytest.mark.server
def test_the_api_tells_names_apart(client: Client, folder: Path) -> None:
    probable = client.predict(handle_file(folder / "red.png"), "blue, red, lime", api_name="/classify")
    assert next(iter(probable)) == "red"
    assert sum(probable.values()) == pytest.approx(1.0)


@pytest.mark.server
def test_bad_input_of_the_api_is_one_plain_sentence(client: Client, folder: Path) -> None:
    red = [handle_file(folder / "red.png")]
    for arguments, message in (
        (("", red), "type what to look for"),
        (("x" * 10_000, red), "10,000 characters"),
        (("red", []), "choose some pictures"),
    ):
        with pytest.raises(AppError, match=message) as refused:
            client.predict(*arguments, api_name="/search")
        assert "Traceback" not in str(refused.value)
    with pytest.raises(AppError, match="there twice"):
        client.predict(red[0], "cat, cat", api_name="/classify")


# The page in a browser


def open_search(page: Page) -> Page:
    page.get_by_role("tab", name="Search").click()
    page.get_by_text("Choose pictures, or a zip of them").wait_for()
    return page


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """A fresh visitor of the tab."""
    with revisit(context, address) as opened:
        yield open_search(opened)


def choose(page: Page, *files: Path) -> None:
    panel = page.get_by_role("tabpanel").locator("visible=true").first
    panel.locator("input[type=file]:not([webkitdirectory])").first.set_input_files(list(files))


def find(page: Page, words: str) -> None:
    box = page.get_by_placeholder("A dog on a beach")
    box.fill(words)
    box.press("Enter")


@pytest.mark.browser
def test_pictures_are_chosen_found_and_asked_about(page: Page, folder: Path) -> None:
    choose(page, *sorted(folder.iterdir()))
    page.locator("#tabs").get_by_text("8 pictures in the index (8 new).").wait_for()
    find(page, "a blue thing")
    first = page.locator(".thumbnail-item:visible, .gallery-item:visible").first
    expect(first).to_contain_text(" · blue.png")
    drawn = "image => image.complete && image.naturalWidth > 0"
    assert first.locator("img").evaluate(drawn)
    first.locator("img").click()
    expect(page.locator(".found .preview")).to_be_visible()
    find(page, "a red thing")  # shows all that were found, and a picture can be asked about again
    expect(page.locator(".found .preview")).to_have_count(0)
    find(page, "a blue thing")
    expect(first).to_contain_text(" · blue.png")
    first.locator("img").click()
    page.get_by_role("button", name="Ask about this picture").click()
    expect(page.get_by_role("tab", name="Image")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".thumbnail-item:visible img").first).to_have_attribute(
        "src", re.compile(r"blue\.png")
    )
    page.get_by_role("button", name="Speak").locator("visible=true").click()
    page.get_by_role("button", name="Stop and send").wait_for()
    page.get_by_role("button", name="Similar pictures").click()
    page.get_by_text("1.00 · blue.png").first.wait_for()
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    page.wait_for_function("!recording")  # nobody is listened to on a tab that the server has left


@pytest.mark.browser
def test_of_a_folder_its_pictures_are_taken_and_what_is_dropped_stays_on_the_tab(
    page: Page, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "red.png", tmp_path)
    (tmp_path / "film.mp4").write_bytes(bytes(65 * 2**20))  # more than a file may have
    (tmp_path / ".DS_Store").write_bytes(bytes(10))
    page.locator("input[webkitdirectory]").set_input_files(tmp_path)
    page.locator("#tabs").get_by_text("1 picture in the index (1 new).").wait_for()
    drop_on(page.get_by_placeholder("A dog on a beach"), folder / "blue.png", "image/png")
    page.locator("#tabs").get_by_text("2 pictures in the index (1 new).").wait_for()
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#told")).to_contain_text("2 pictures in the index")  # for a screen reader


@pytest.mark.browser
def test_an_index_is_downloaded_and_loaded_by_another_visitor_who_saw_nothing_of_it_before(
    page: Page, browser: Browser, address: str, folder: Path, tmp_path: Path
) -> None:
    choose(page, *sorted(folder.iterdir()))
    page.locator("#tabs").get_by_text("8 pictures in the index").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the index").click()
    download.value.save_as(tmp_path / "pictures.safetensors")
    with visit(browser, address) as other:
        open_search(other)
        find(other, "a blue thing")
        other.locator(".toast-body").get_by_text("no pictures to search in").wait_for()
        assert "blue.png" not in other.content()
        with other.expect_file_chooser() as chooser:
            other.get_by_role("button", name="Load an index").click()
        chooser.value.set_files(tmp_path / "pictures.safetensors")
        other.locator("#tabs").get_by_text("8 pictures in the index").wait_for()
        find(other, "lime")
        other.get_by_text(" · lime.png").first.wait_for()


@pytest.mark.browser
def test_mistakes_are_plain_messages_and_nothing_is_lost(page: Page, folder: Path, tmp_path: Path) -> None:
    find(page, "red")
    page.locator(".toast-body").get_by_text("no pictures to search in").wait_for()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    choose(page, folder / "red.png", tmp_path / "bad.png")
    page.locator("#tabs").get_by_text("1 was left out").wait_for()
    find(page, "x" * 10_000)
    page.locator(".toast-body").get_by_text("10,000 characters").wait_for()
    expect(page.get_by_placeholder("A dog on a beach")).to_have_value("x" * 10_000)
    expect(page.get_by_text("red.png").first).to_be_visible()
    assert "Traceback" not in page.content()


@pytest.mark.browser
def test_names_are_compared_as_a_bar_chart(page: Page, folder: Path) -> None:
    page.get_by_role("button", name="Which of these names fits a picture?").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Drop an image file here").click()
    chooser.value.set_files(folder / "red.png")
    expect(
        page.get_by_alt_text("Picture to name").or_(page.locator(".image-frame img:visible")).first
    ).to_be_visible()
    page.get_by_label("Names, separated by commas").fill("blue, red, lime")
    page.get_by_role("button", name="Compare the names").click()
    expect(page.get_by_test_id("label-output-value")).to_have_text("red")


@pytest.mark.browser
def test_the_tab_fits_a_phone_and_everything_on_it_has_a_name(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, textarea, input:not([type=file])")]
        .filter(each => each.checkVisibility({visibilityProperty: true}) && !each.innerText && !each.ariaLabel
            && !each.title && !each.labels?.length && !each.placeholder).length"""
    )
    assert unnamed == 0


@pytest.mark.server
def test_the_descriptions_for_other_programs_are_there(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert {"/search", "/classify"} <= set(endpoints)
    described = json.dumps([endpoints["/search"], endpoints["/classify"]])
    assert "Find pictures by words" in described and "Tell which of some names" in described
