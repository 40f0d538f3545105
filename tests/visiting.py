"""What a visitor of the page does in a real browser, for the tests that drive one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Frame, Locator, Page, Playwright, ViewportSize

from tests.conftest import CHROMIUM_OPTIONS, EXAMPLES

# "He was not an ill-disposed young man."
SENTENCE = Path(__file__).parent / "data" / "sense-and-sensibility-0880.wav"
BROKEN_OFF = (
    "AbortError: signal is aborted",
    "Connection errored out",
)  # Gradio's client, of requests that a reload ends
PERMISSIONS = ["microphone", "camera"]
PATIENCE = 90_000  # milliseconds: two cores may be busy


def launch(playwright: Playwright, chromium: str, microphone: Path = SENTENCE) -> Browser:
    """A browser that hears the file as its microphone."""
    options = [*CHROMIUM_OPTIONS, f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    return playwright.chromium.launch(executable_path=chromium, args=options)


def new_context(browser: Browser, **options: object) -> BrowserContext:
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})  # type: ignore
    context.grant_permissions(PERMISSIONS)
    return context


def new_tab(context: BrowserContext, patience: int) -> Page:
    page = context.new_page()
    page.set_default_timeout(patience)
    return page


def new_page(browser: Browser, patience: int = PATIENCE, **options: object) -> Page:
    return new_tab(new_context(browser, **options), patience)


def load(page: Page, address: str) -> Page:
    page.goto(address)
    page.locator(".bar:visible").wait_for()
    return page


def open_page(browser: Browser, address: str, patience: int = PATIENCE, **options: object) -> Page:
    return load(new_page(browser, patience, **options), address)


def watch(page: Page, address: str) -> list[str]:
    """What the page complains about in the console, or asks of another machine, from now on."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    local = (address, "blob:", "data:")
    page.on(
        "request", lambda request: None if request.url.startswith(local) else problems.append(request.url)
    )
    return problems


@contextmanager
def visit(browser: Browser, address: str, patience: int = PATIENCE, **options: object) -> Iterator[Page]:
    """A fresh visitor; what the page complains about, or asks of another machine, fails the test, from its loading on."""
    context = new_context(browser, **options)
    with _without_complaints(new_tab(context, patience), address, context.close) as page:
        yield page


@contextmanager
def revisit(
    context: BrowserContext,
    address: str,
    patience: int = PATIENCE,
    viewport: ViewportSize | None = None,
    strict: bool = True,
) -> Iterator[Page]:
    """The same in a browser that has the page's files in its cache, which makes it quicker, and nothing else of before.
    Not `strict`: what the page complains about fails nothing, for where something is to go wrong."""
    tab = new_tab(context, patience)
    if viewport:
        tab.set_viewport_size(viewport)
    with _without_complaints(tab, address, lambda: _forget(context, address), strict) as page:
        yield page


def _forget(context: BrowserContext, address: str) -> None:
    for page in context.pages:
        page.close()
    empty = context.new_page()
    whose = {"origin": address.rstrip("/"), "storageTypes": "all"}
    context.new_cdp_session(empty).send("Storage.clearDataForOrigin", whose)
    empty.close()
    context.clear_cookies()
    context.clear_permissions()
    context.grant_permissions(PERMISSIONS)


@contextmanager
def _without_complaints(
    opened: Page, address: str, leave: Callable[[], None], strict: bool = True
) -> Iterator[Page]:
    problems = watch(opened, address)

    def reloaded(frame: Frame) -> None:
        if frame == opened.main_frame:
            problems[:] = [each for each in problems if not any(words in each for words in BROKEN_OFF)]

    opened.on("framenavigated", reloaded)
    try:
        yield load(opened, address)
    finally:
        leave()
    assert not strict or not problems, problems


def box(page: Page) -> Locator:
    return page.locator(".composer textarea:visible")


def ask(page: Page, question: str) -> None:
    box(page).fill(question)
    box(page).press("Enter")


def answers(page: Page) -> Locator:
    """The finished ones; a growing one has nothing to open yet."""
    return page.locator(".answer:visible:has(.trace)")


def wait_until_idle(page: Page) -> None:
    answers(page).last.wait_for()


def bot_text(page: Page) -> str:
    return "\n".join(page.locator("[data-testid=bot]:visible").all_inner_texts())


def add_picture(page: Page, name: str) -> None:
    page.locator(".composer input[type=file]").first.set_input_files(EXAMPLES / name)
    page.locator(".thumbnail-item:visible").first.wait_for()


FILE_IN_HAND = """([name, type, bytes]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(bytes)], name, {type}));
    return carried;
}"""


def drop_on(onto: Locator, path: Path, kind: str) -> None:
    carried = onto.page.evaluate_handle(FILE_IN_HAND, [path.name, kind, list(path.read_bytes())])
    onto.dispatch_event("drop", {"dataTransfer": carried})
