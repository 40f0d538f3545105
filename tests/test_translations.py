"""The page in six languages: the table is whole, nothing that is shown bypasses it, and a browser sees its own language."""

import ast
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.chatting import ChattingAssistant
from tests.conftest import EXAMPLES, ROOT, served
from tests.visiting import add_picture, answers, ask, box, visit
from vlm import Answer, Settings, UserError
from vlm.chat.conversation import Conversation, Exchange
from vlm.chat.index import Broken, Report
from vlm.chat.occlusion import Look
from vlm.chat.search import check_query
from vlm.chat.trace import trace_of
from vlm.config import load_model_config
from vlm.inputs.audio import open_audio
from vlm.inputs.images import open_image
from vlm.model.about import about, parts, scores, training
from vlm.model.adapter_folder import ADAPTERS
from vlm.serving.gate import Gate
from vlm.serving.launch import SCRIPTS
from vlm.serving.limits import Limit, TryLater
from vlm.serving.looking import _laid_over, _shown
from vlm.serving.messages import STAGES, editing_notice, messages
from vlm.serving.page import HEADER, TITLE, build_app
from vlm.serving.serving import Serving, waiting
from vlm.serving.thumbs import notice_of
from vlm.serving.translations import ASSETS, table, translated

BRIEF = 20_000  # milliseconds
# Examples of what the Search tab is asked in: its aligner reads English.
ENGLISH_ON_PURPOSE = {"A dog on a beach", "cat, dog, bird", TITLE}
UNSEEN = {"Run"}  # what Gradio writes on the buttons of endpoints
TEXT_OF = {
    "button": ("value",),
    "uploadbutton": ("label",),
    "tabitem": ("label",),
    "accordion": ("label",),
}
PLACEHOLDER = re.compile(r"{\w+}")
TIMED = ("transcribe", "look", "first_token", "generate", "clean_up", "total")


class Shown(HTMLParser):
    """The texts of HTML that people see or hear, but what is marked as not to be translated."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.kept: list[bool] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.texts += [
            found[name] or "" for name in ("aria-label", "title", "placeholder", "alt") if name in found
        ]
        if tag not in ("img", "input", "br"):
            self.kept.append(found.get("translate") == "no")

    def handle_endtag(self, tag: str) -> None:
        self.kept.pop()

    def handle_data(self, data: str) -> None:
        if not any(self.kept) and re.search("[A-Za-z]{2}", data):
            self.texts.append(data.strip())


def is_known(text: str) -> bool:
    """In the table, or of the shape of one of its texts with something in braces."""
    if text in table()["de"] or text in ENGLISH_ON_PURPOSE:
        return True
    shapes = (".+?".join(map(re.escape, PLACEHOLDER.split(each))) for each in table()["de"] if "{" in each)
    return any(re.fullmatch(shape, text, re.DOTALL) for shape in shapes)


def missing(texts: Any) -> list[str]:
    return sorted({text for text in texts if text and not is_known(text)})


def test_every_text_has_every_language_with_the_same_placeholders() -> None:
    assert set(table()) == {"it", "de", "es", "fr", "zh"}
    for code, texts in table().items():
        assert list(texts) == list(table()["de"])
        for english, said in texts.items():
            assert said.strip() == said and said, (code, english)
            assert sorted(PLACEHOLDER.findall(english)) == sorted(PLACEHOLDER.findall(said)), (code, english)
            assert texts.get(said, said) == said, f"{said} would be translated again"


def test_all_that_the_components_show_is_in_the_table() -> None:
    shown: list[str] = []
    blocks = build_app(Serving(ChattingAssistant())).config["components"]  # type: ignore[arg-type]
    for block in blocks:
        properties, kind = block["props"], block["type"]
        if properties.get("visible") is False and kind != "button":
            continue  # an endpoint's: the description of the API is English
        names = TEXT_OF.get(kind, ("label", "info", "placeholder", "submit_btn"))
        shown += [
            properties[name]
            for name in names
            if isinstance(properties.get(name), str) and properties.get("show_label", True)
        ]
        if kind == "radio":
            shown += [name for name, _ in properties["choices"]]
        if kind == "html":
            template = properties.get("html_template") or ""
            shown += Shown(template.replace("${value}", "").replace("{{value}}", "")).texts
        if kind == "chatbot":
            shown += [each["text"] for each in properties["examples"] if not each["text"].startswith("“")]
    assert "Image" in shown and "Speak" in shown and "Sentences" in shown and "What is this?" in shown
    assert not missing(set(shown) - UNSEEN)
    assert not missing(Shown(HEADER.format(title=TITLE, description="")).texts)


def test_all_that_stands_around_an_answer_is_in_the_table() -> None:
    exchanges = []
    for ended in (True, False):
        answer = Answer("a cat", "done", "image", "heard", "cat 9%", "cat", "accepted", "m", "a", "e", "CPU", 1,
                        seconds=dict.fromkeys(TIMED, 1.0), tokens=3, ended=ended, left_out=2, set_aside=1)  # fmt: skip
        settings = Settings(temperature=0.5)
        exchanges.append(Exchange("What is this?", ("/lost.png",), settings=settings, answer=answer))
    conversation = Conversation(exchanges)
    told = messages(conversation, kept=notice_of("votes"))
    shown = [text for each in told for text in Shown(each["content"][0]["value"]).texts]
    assert "Bad answer" in shown and "Where it looked" in shown and "What color is it?" in shown
    shown += [
        *Shown(editing_notice(1)).texts,
        *Shown(editing_notice(1, typed=False)).texts,
        *STAGES.values(),
        *(label for label, _ in trace_of(answer)),
    ]
    shown += [f"Waiting for your turn, about {told}…" for told in ("1 second", "2 seconds", "2 minutes")]
    assert not missing(shown)


def test_all_that_is_told_of_a_look_and_of_an_index_is_in_the_table() -> None:
    looks: tuple[Look | Answer, ...] = Look("cat", 0.9, 0.5), Look("cat", 0.9, 1.0, Image.new("RGB", (8, 8)))
    looks += tuple(waiting(seconds) for seconds in (1, 2, 120))
    shown = [text for each in looks for text in Shown(_laid_over(_shown(each))).texts]
    assert "Waiting, about 2 seconds…" in shown and "Looking for “cat”…" in shown
    broken = Broken(
        "bad.png", 'The picture "bad.png" is empty. Save or download it again, or choose another picture.'
    )
    for copies in (1, 2):
        report = Report(total=9, done=1, added=1, broken=[broken] * copies, copies=["a.png"] * copies)
        shown += [*report.sentences(1), *report.sentences(2), *Report().sentences(1), *Report().sentences(2)]
    assert "1 was left out." in shown and "2 pictures in the index (1 new)." in shown
    assert not missing(shown)


def test_why_a_clean_up_was_rejected_is_in_the_table() -> None:
    tree = ast.parse((ROOT / "vlm" / "chat" / "meaning.py").read_text(encoding="utf-8"))
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.endswith("_reason")
    ]
    reasons = {text for each in functions for text in returned_by(each)}
    assert {"is empty", 'adds "{}"', "changes {} to {}"} <= reasons
    known = {PLACEHOLDER.sub("{}", text) for text in table()["de"]}
    assert reasons <= known


def test_all_that_the_card_of_the_model_says_is_in_the_table() -> None:
    """But for the names of sets and files, and what the data card tells below its tables."""
    config, made = load_model_config("embedded"), {"init_from": "first", "device": "cpu", "seed": 0}
    stage = {"train": "projector", "max_steps": 0, "epochs": 1, "connector_learning_rate": 1e-3}
    made |= {"batch_size": 4, "joint_stage": stage, "sources": [{"name": "tiny", "share": 1, "turns": 2}]}
    card = about(config, ADAPTERS / "embedded")
    others = about(config, None), about(load_model_config("remote"), None), scores({}), training({})
    others += training({"imported_from": "llava-hf/llava"}), training(made)  # type: ignore[assignment]
    render = MarkdownIt("commonmark").enable("table").render
    html = re.sub(
        "<pre>.*?</pre>", "", "".join(map(render, (card.split("<summary>Data")[0], *others))), flags=re.DOTALL
    )
    told = [" ".join(text.split()) for text in Shown(html).texts]
    sentences = [text for text in told if re.match("[A-Z].* [a-z]", text)]
    heads = re.findall(r"<th>([^<]+)</th>", render(card))
    firsts = re.findall(r"<tr>\s*<td>([^<]+)</td>", render(parts(config)))
    assert len(sentences) > 20 and len(heads) > 20 and len(firsts) == 6
    assert not missing({*sentences, *heads, *firsts} - {"LoRA", config.name, "remote"})


def test_all_that_the_scripts_say_is_in_the_table() -> None:
    """Whatever looks like words for people: in quotes, with a capital letter first."""
    names = "DOMContentLoaded Enter Escape ArrowUp Files NotFoundError QuotaExceededError"
    shown = []
    for name in SCRIPTS:
        code = (ASSETS / "page" / f"{name}.js").read_text(encoding="utf-8")
        code = re.sub(r'"\s*\+\s*"', "", code)  # a text over two lines
        shown += re.findall(r'"([A-Z][^"\n]*[a-z][^"\n]*)"', code)
    assert "Sending…" in shown and "Rename" in shown
    assert not missing(set(shown) - {*names.split()})
    assert not missing(Shown((ASSETS / "page" / "list.html").read_text(encoding="utf-8")).texts)


@pytest.mark.parametrize(
    "accepted, said",
    [
        ("de-DE,de;q=0.9,en;q=0.8", "Was ist das?"),
        ("zh-CN", "这是什么？"),
        ("fr;q=0.9", "Qu'est-ce que c'est ?"),
        ("pt-BR,de;q=0.5", "What is this?"),  # as the page shows it
        ("", "What is this?"),
    ],
)
def test_an_example_is_asked_in_the_language_it_is_shown_in(accepted: str, said: str) -> None:
    assert translated(accepted, "What is this?") == said


def refusals(tmp_path: Path) -> Iterator[UserError]:
    """What goes wrong most often."""
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes((EXAMPLES / "cat.jpg").read_bytes()[:2000])
    empty.touch()
    limit, gate = Limit("questions", 1), Gate(lambda: 1)
    limit.take("ann")
    gate.line_up("ann")
    tried: list[Callable[[], object]] = [
        lambda: open_image(broken),
        lambda: open_image(empty),
        lambda: open_image(EXAMPLES / "SOURCES.md"),
        lambda: limit.take("ann"),
        lambda: check_query("", None),
        lambda: open_audio((16_000, np.zeros(0, np.float32))),
        lambda: gate.line_up("ann", most=1),
        lambda: gate.line_up("ann", most_each=1),
    ]
    for each in tried:
        with pytest.raises(UserError) as refused:
            each()
        yield refused.value


def test_what_goes_wrong_most_often_is_in_the_table(tmp_path: Path) -> None:
    assert not missing(map(str, refusals(tmp_path)))


REFUSING = (  # whose refusals people meet on the page
    "chat/answer", "chat/assistant", "chat/conversation", "chat/index", "chat/indexing", "chat/occlusion", "chat/reply",
    "chat/search", "engines/remote", "inputs/audio", "inputs/images", "inputs/speech", "inputs/zips",
    "chat/records", "serving/allowance", "serving/guard", "serving/keeping", "serving/looking", "serving/questions",
    "serving/received", "serving/searches", "serving/switch", "serving/voting",
)  # fmt: skip
ELSEWHERE = {  # what only programs, the shell and whoever starts the server meet
    "The answer style must be full or keywords.",
    "The {} must be between {} and {}{}.",  # the page's sliders end there
    "There is no index {}. Check its name.",
    "The index {} could not be written ({}).",
    "The index {} is of other pictures, such as {}. Give another file, or delete this one first.",
    "There is no folder {}. Check its name.",
    "There are no pictures in the folder {}. Choose another one.",
    "Please ask for at least one picture.",
    "The engine is a server: set {} to its address, such as http://host:8000/v1.",
    "{} must be an address such as http://host:8000/v1, and is {}.",
    "One person can send {} pictures before their question a minute here.",
    "One person can send {} requests for a session a minute here.",
    "{} is not served here. Whoever runs the server can add it to ALLOWED_HOSTS.",
    "Pages of other sites may not use this server. Add theirs to ALLOWED_HOSTS.",
    "There is nothing here.",
    "Please give your name and password.",  # the browser asks for them
    "Please say how large the files are (Content-Length).",
}


def plain(text: str) -> str:
    """Whatever a text holds that changes, as {}, with what it is of."""
    return re.sub(r"^The (server|picture) {}", "{}", re.sub(r'"?{\w*}"?', "{}", text).replace("{}: {}", "{}"))


def filled(parts: list[ast.expr]) -> str:
    """The text of an f-string, with {} for what changes."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)


def returned_by(function: ast.FunctionDef) -> Iterator[str]:
    """The texts that a function returns, by either branch of an `if ... else`."""
    values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    for value in values:
        for each in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
            match each:
                case ast.Constant(str(text)) if text:
                    yield text
                case ast.JoinedStr(parts):
                    yield filled(parts)


def told_in(module: str) -> Iterator[str]:
    """The texts of the errors that a module of vlm/ raises; but for those that begin with what another function says."""
    raising = {"UserError", "NoAnswer", "TryLater", "Unavailable", "TooLong"}
    for node in ast.walk(ast.parse((ROOT / "vlm" / f"{module}.py").read_text(encoding="utf-8"))):
        match node:
            case ast.Call(ast.Name(name), [ast.Constant(str(text)), *_]) if name in raising:
                yield plain(text)
            case ast.Call(ast.Name(name), [ast.JoinedStr(parts), *_]) if name in raising:
                yield plain(filled(parts))
            case ast.Call(ast.Name("Refused"), [_, ast.Constant(str(text))]):
                yield plain(text)
            case ast.Call(ast.Name("Refused"), [_, ast.JoinedStr(parts)]):
                yield plain(filled(parts))
            case ast.Call(ast.Name("Limit"), [ast.Constant(str(things)), _]):
                yield plain(f"One person can send {{}} {things} a minute here.")
            case ast.Call(ast.Name("Limit"), [ast.Constant(str(things)), _, _]):
                yield plain(f"One person can send {{}} {things} in {{}} hours here.")


def test_every_refusal_that_people_meet_is_in_the_table() -> None:
    known = {plain(text) for text in table()["de"]}
    told = {text for module in REFUSING for text in told_in(module)}
    assert len(told) > 60 and told >= ELSEWHERE
    composed = {
        text for text in told if re.search(r"{}\.?$|^{} {}\.", text)
    }  # with another text, which are tried above
    assert told - known - ELSEWHERE - composed == set()


# The page in a browser


@pytest.fixture(scope="module")
def chatting() -> ChattingAssistant:
    return ChattingAssistant()


@pytest.fixture(scope="module")
def address(chatting: ChattingAssistant) -> Iterator[str]:
    serving = Serving(chatting)  # type: ignore[arg-type]
    serving.model.presets = ["embedded"]
    with served(serving) as page_address:
        yield page_address


def tabs(page: Page) -> list[str]:
    return page.locator("#tabs > .tab-wrapper [role=tab]").all_inner_texts()


def show_settings(page: Page) -> None:
    page.locator("[data-action=show-settings]").first.click()


@pytest.mark.browser
def test_a_german_visitor_asks_and_keeps_a_conversation_in_german(
    browser: Browser, address: str, chatting: ChattingAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatting, "clean_up", 'rejected: drops "brown"')
    monkeypatch.setattr(chatting, "seconds", {"first_token": 0.2, "total": 1.0})
    chatting.asked.clear()
    with visit(browser, address, BRIEF, locale="de-DE") as page:
        assert tabs(page) == ["Bild", "Text", "Stimme", "Suchen", "Über dieses Modell"]
        expect(page.locator("html")).to_have_attribute("lang", "de")
        page.locator(".composer input[type=file]").first.set_input_files(EXAMPLES / "SOURCES.md")
        page.get_by_text("Ungültiger Dateityp: SOURCES.md. Erlaubt sind nur: image, audio.").first.wait_for()
        add_picture(page, "cat.jpg")
        expect(box(page)).to_have_attribute("placeholder", "Frage etwas zum Bild")
        ask(page, "Search")  # a visitor's own words stay, whatever they are
        expect(answers(page)).to_have_count(1)
        expect(page.locator(".question:visible .words")).to_have_text("Search")
        page.get_by_role("button", name="Vorlesen").wait_for()
        page.get_by_text("Wie diese Antwort entstand").click()
        expect(page.locator(".trace dt")).to_contain_text(["Entwurf", "Modell"])
        expect(page.locator(".trace dd")).to_contain_text(["aus", "3 Token, 0.0 in der Sekunde"])
        expect(page.locator(".trace")).to_contain_text("Überarbeitungabgelehnt: lässt „brown“ weg")
        expect(page.locator(".trace")).to_contain_text("erstes Token 0.2 s, gesamt 1.0 s")
        page.get_by_role("button", name="Welche Farbe hat es?").click()
        expect(answers(page)).to_have_count(2)
        assert [each["question"] for each in chatting.asked] == ["Search", "Welche Farbe hat es?"]
        entry = page.locator(".conversations li")
        expect(entry.locator("[data-list=open]")).to_contain_text("Search")
        expect(entry.locator("small")).to_contain_text("Bild ·")
        entry.locator("summary").click()
        entry.get_by_role("button", name="Löschen").click()
        page.get_by_text("„Search“ wurde gelöscht.").wait_for()
        page.get_by_role("button", name="Rückgängig").click()
        page.get_by_role("tab", name="Text").click()
        page.locator(".conversations li [data-list=open]").click()  # shows the tab that it belongs to
        expect(page.get_by_role("tab", name="Bild")).to_have_attribute("aria-selected", "true")
        show_settings(page)
        for label in ("Anweisungen", "Längste Antwort, in Token", "Sätze", "Gesprochene Sprache"):
            page.locator("#settings").get_by_text(label, exact=True).first.wait_for()
        spoken = page.get_by_label("Gesprochene Sprache", exact=True)
        expect(spoken).to_have_value("Herausfinden")
        page.get_by_role("tab", name="Text").click()
        page.locator(".example:visible", has_text="Warum ist der Himmel blau?").click()
        expect(page.locator(".question:visible .words")).to_have_text("Warum ist der Himmel blau?")
        expect(answers(page)).to_have_count(1)
        assert chatting.asked[-1]["question"] == "Warum ist der Himmel blau?"


@pytest.mark.browser
def test_where_the_page_is_in_another_language_it_says_that_pictures_are_told_of_in_english(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeing = ChattingAssistant()
    seeing.adapter_folder = ASSETS.parent / "assets" / "adapters" / "embedded"  # type: ignore[assignment]
    serving = Serving(seeing)  # type: ignore[arg-type]
    serving.model.presets = ["embedded"]
    with served(serving) as address:
        for locale, shown in (("fr-FR", True), ("en-GB", False), ("pt-PT", False)):
            with visit(browser, address, BRIEF, locale=locale) as page:
                expect(page.locator(".foreign")).to_be_visible(visible=shown)
                if shown:
                    expect(page.locator(".foreign")).to_contain_text("mieux comprises en anglais")
                    page.get_by_role("tab", name="À propos de ce modèle").click()
                    page.get_by_role("heading", name="Limites").wait_for()
                    page.get_by_text("Il ne lit pas le texte : panneaux,").wait_for()
                    page.get_by_text("Entraînement", exact=True).click()
                    page.get_by_role("cell", name="1487 pas").wait_for()
                    page.get_by_text("Composants", exact=True).click()
                    page.get_by_role("cell", name="images de 320 pixels de côté").wait_for()
                if locale == "pt-PT":  # which the page does not speak
                    assert tabs(page) == ["Image", "Text", "Voice", "Search", "About this model"]
                    expect(page.locator("html")).to_have_attribute("lang", "en")
                show_settings(page)
                spoken = page.locator("#settings").get_by_role("combobox").first
                expect(spoken).to_have_value(
                    {"en-GB": "English", "fr-FR": "Détecter", "pt-PT": "Find out"}[locale]
                )


@pytest.mark.browser
def test_a_refusal_is_told_in_the_visitors_language(
    browser: Browser, address: str, chatting: ChattingAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Iterator[Answer]:
        raise TryLater("The queue is full: 20 questions are waiting.", 41)

    monkeypatch.setattr(chatting, "stream", refuse)
    with visit(browser, address, BRIEF, locale="it-IT") as page:
        ask(page, "Cosa vedi?")
        page.get_by_text("Aggiungi prima un'immagine: caricala").first.wait_for()
        expect(page.locator(".toast-body")).to_have_count(0)  # the notice above the box says it
        add_picture(page, "cat.jpg")
        ask(page, "Cosa vedi?")
        full = page.get_by_text("La coda è piena: 20 domande sono in attesa. Riprova tra 41 secondi.")
        full.first.wait_for()  # as a message, and above the box


@pytest.mark.browser
def test_a_chinese_visitor_sees_chinese(browser: Browser, address: str) -> None:
    with visit(browser, address, BRIEF, locale="zh-CN") as page:
        assert tabs(page) == ["图片", "文字", "语音", "搜索", "关于此模型"]
        show_settings(page)
        page.locator("#settings").get_by_text("回答风格").wait_for()
        page.get_by_role("tab", name="语音").click()
        page.get_by_role("button", name="说话").wait_for()
