"""The thumbs in headless Chromium, down to the training row."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.chatting import ChattingAssistant
from tests.conftest import served
from tests.test_serving import wait_until
from tests.visiting import add_picture, answers, ask, revisit
from training import prepare
from training.data import read_rows
from vlm.chat.feedback import Feedback, read_feedback
from vlm.serving.environment import ServerSettings
from vlm.serving.serving import Serving

pytestmark = pytest.mark.browser
BRIEF = 20_000  # milliseconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("thumbs")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm.serving.switch.runnable_presets", lambda: ["embedded"])
        serving = Serving(ChattingAssistant(), settings=ServerSettings(feedback=folder))  # type: ignore[arg-type]
        with served(serving) as page_address:
            yield page_address


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    with revisit(context, address, BRIEF) as opened:
        yield opened


def thumb(page: Page, name: str, pressed: bool) -> None:
    """Wait until that thumb is so."""
    button = page.get_by_role("button", name=name, exact=True).locator("visible=true").last
    expect(button).to_have_attribute("aria-pressed", str(pressed).lower(), timeout=BRIEF)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").last.click()


def kept(folder: Path) -> list[Feedback]:
    return list(read_feedback(folder))


def test_a_thumb_down_with_the_right_answer_becomes_a_training_row(
    page: Page,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_picture(page, "stop-sign.jpg")
    ask(page, "What is this?")
    expect(answers(page)).to_have_count(1)
    expect(page.locator(".answer:visible > .note")).to_contain_text(f"in its folder “{folder.name}”")
    press(page, "Bad answer")
    box = page.get_by_label("The right answer, if you know it")
    expect(box).to_be_focused()
    box.fill("A stop sign.")
    assert not kept(folder)  # nothing before it is sent
    press(page, "Send")
    thumb(page, "Bad answer", True)
    expect(box).to_be_hidden()
    (file,) = folder.glob("*.parquet")
    (row,) = parquet.read_table(file).to_pylist()
    said = answers(page).locator(".words").inner_text().strip()
    assert (row["question"], row["answer"]) == ("What is this?", said)
    assert (row["thumb"], row["right_answer"], row["preset"], row["adapter"]) == (
        "down",
        "A stop sign.",
        "embedded",
        "",
    )
    monkeypatch.setattr(sys, "argv", ["prepare", "--feedback", str(folder), "--output", str(tmp_path)])
    prepare.main()
    assert capsys.readouterr().out.startswith("1 votes: 1 are rows, on 1 pictures.")
    (learned,) = read_rows(tmp_path, "train", "feedback")
    assert (learned.question, learned.answer) == ("What is this?", "A stop sign.")
    voted = "page.store.all().then(all => all.some(each => each.record.exchanges.some(said => said.voted)))"
    page.wait_for_function(voted)
    page.reload()  # the browser kept that it has voted, and so the way to take it back
    thumb(page, "Bad answer", True)
    press(page, "Bad answer")
    thumb(page, "Bad answer", False)
    assert not kept(folder)


def test_thumbs_go_from_up_to_down_and_away(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Text").click()
    ask(page, "Say yes.")
    expect(answers(page)).to_have_count(1)
    press(page, "Good answer")
    thumb(page, "Good answer", True)
    assert [each.thumb for each in kept(folder)] == ["up"]
    press(page, "Bad answer")
    press(page, "Cancel")
    thumb(page, "Good answer", True)
    press(page, "Bad answer")
    press(page, "Send")
    thumb(page, "Bad answer", True)
    thumb(page, "Good answer", False)
    assert [(each.thumb, each.right_answer, each.picture) for each in kept(folder)] == [("down", "", None)]
    press(page, "Bad answer")
    thumb(page, "Bad answer", False)
    assert not kept(folder)


def test_a_right_answer_that_is_being_written_stays_with_its_answer(page: Page, folder: Path) -> None:
    """Also while others are asked for, in another way through the conversation as well."""
    page.get_by_role("tab", name="Text").click()
    form = page.locator(".right-answer:visible")
    ask(page, "Say maybe.")
    expect(answers(page)).to_have_count(1)
    page.get_by_role("button", name="Try again").locator("visible=true").click()
    expect(page.locator(".versions:visible")).to_have_text("‹2 / 2›", timeout=BRIEF)
    expect(page.get_by_role("button", name="Bad answer").locator("visible=true")).to_be_visible(timeout=BRIEF)
    press(page, "Bad answer")
    form.get_by_role("textbox").fill("Perhaps.")
    page.get_by_role("button", name="Earlier version").locator("visible=true").click()
    expect(page.locator(".versions:visible")).to_have_text("‹1 / 2›", timeout=BRIEF)
    ask(page, "Say yes.")
    expect(answers(page)).to_have_count(2)
    expect(form).to_have_count(0)
    page.get_by_role("button", name="Later version").locator("visible=true").click()
    expect(form.get_by_role("textbox")).to_have_value("Perhaps.", timeout=BRIEF)
    ask(page, "Say no.")
    expect(answers(page)).to_have_count(2)
    expect(form.get_by_role("textbox")).to_have_value("Perhaps.", timeout=BRIEF)
    form.get_by_role("button", name="Send").click()
    expect(form).to_have_count(0)
    first = page.get_by_role("button", name="Bad answer").locator("visible=true").first
    expect(first).to_have_attribute("aria-pressed", "true", timeout=BRIEF)
    (vote,) = kept(folder)
    assert (vote.question, vote.right_answer) == ("Say maybe.", "Perhaps.")
    first.click()
    wait_until(lambda: not kept(folder))


def test_a_full_place_is_told_in_a_sentence(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Text").click()
    ask(page, "Say no.")
    expect(answers(page)).to_have_count(1)
    large = folder / "large"
    with large.open("wb") as file:
        file.truncate(ServerSettings().feedback_mb * 2**20)  # takes no room on most disks
    press(page, "Good answer")
    page.locator(".toast-body").get_by_text("The place for feedback is full").wait_for()
    thumb(page, "Good answer", False)
    large.unlink()
