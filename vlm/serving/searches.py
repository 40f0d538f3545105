"""What happens on the Search tab: pictures are embedded, found, shown, asked about; an index is saved and loaded.

Each visitor's index is kept on the server in their own session, and nowhere else.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakSet

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image, ImageDraw, ImageFont

from vlm.chat.conversation import NOTHING, Composed, Conversation, composed_exchange
from vlm.chat.index import Found, PictureIndex, Report
from vlm.chat.indexing import add_pictures
from vlm.chat.search import checked_names, filled, split_names
from vlm.errors import UserError
from vlm.serving.callers import current_caller
from vlm.serving.plain_errors import plain_sentence
from vlm.serving.received import BROWSERS_SHOW, MAX_INDEXED, chosen_pictures, shown_file, small_file
from vlm.serving.serving import Serving

SHOWN = 24  # pictures in the gallery
MAX_HELD_BYTES = 128 * 1024 * 1024  # of the vectors of all visitors
INVITATION = "Choose pictures, or a zip of them. Then find them by words, by another picture, or by both."
LET_GO = "Your pictures to search in had to make room for those of others. Please choose them again."
WITHOUT_PICTURES = "Choose the pictures of the index as well, to see them and ask about them."
GREY, DARK_GREY = (226, 232, 240), (71, 85, 105)

Tile = tuple[str | Image.Image, str]


@dataclass(eq=False)
class SearchSession:
    """What one visitor has on the tab."""

    index: PictureIndex | None = None
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 -> the picture's file on the server
    small: dict[str, str] = field(default_factory=dict)  # SHA-256 -> what the gallery shows of a large one
    waiting: list[str] = field(default_factory=list)  # files that were sent and not yet looked at
    shown: list[Found] = field(default_factory=list)
    chosen: str | None = None  # SHA-256 of the picture that was clicked
    reading: bool = False  # pictures are being embedded
    # Words and picture that were searched for since pictures were chosen
    query: tuple[str, str | None] | None = None
    used: float = 0.0  # when the index last was
    let_go: bool = False  # the index, to make room for those of others


class Searches:
    """The handlers of the tab's events."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.sessions: WeakSet[SearchSession] = WeakSet()

    def look_whether_it_loads(self) -> Any:
        """When the tab is opened: the aligner is loaded, or the tab says why it cannot be."""
        try:
            self.serving.searcher.get()
        except Exception as problem:
            return gr.update(value=f'<p class="notice">{plain_sentence(problem)}</p>', visible=True)
        return gr.update(value="", visible=False)

    # Pictures are embedded.

    def take(self, session: SearchSession, files: list[str] | None) -> list[Any]:
        """The files wait for their turn, and there is room for more. -> report, stop, files"""
        session.waiting += files or []
        session.query = None
        return [report_line("Reading the pictures…"), gr.update(interactive=True), None]

    def embed(self, session: SearchSession) -> Iterator[str]:
        """The report as the index grows. Gradio closes it on Stop, and when the browser goes away; what was embedded
        until then stays."""
        files, session.waiting = session.waiting, []
        if not files:
            return  # stopped while it waited
        session.reading = True
        try:
            index = self._index_of(session)
            self.serving.allowance.check_searched()
            with chosen_pictures(files) as pictures:
                self._make_room(session, len(pictures))
                self.serving.allowance.take_searched(len(pictures))
            embed, start = self.serving.searcher.get().aligner.embed_pictures, time.monotonic()
            index.report = Report(total=len(pictures))
            lacking = {each.sha256 for each in index.entries} - session.files.keys()
            for seen in add_pictures(index, pictures, embed):
                for file, sha256 in seen:
                    session.files[sha256] = str(file.path)
                    if sha256 in lacking:  # what an index that was loaded came without is no copy
                        lacking.remove(sha256)
                        index.report.copies.remove(file.title)
                yield progress_bar(index.report, time.monotonic() - start)
        except Exception as problem:
            gr.Warning(plain_sentence(problem))
        finally:
            session.reading, session.used = False, time.monotonic()

    def settle(self, session: SearchSession) -> list[Any]:
        """After the embedding, however it ended. What was searched for meanwhile is found among all. -> report, stop,
        gallery, ask"""
        under_way = bool(session.waiting) or session.reading  # of files that were chosen meanwhile
        said = [self._said_of(session), gr.update(interactive=under_way)]
        index = session.index
        if session.query and index:
            with suppress(UserError):  # the picture that was searched by is gone
                found = self._found(index, session.query)
                unchanged = [each.sha256 for each in found] == [each.sha256 for each in session.shown]
                if unchanged and session.chosen:  # one of them is being looked at
                    return [*said, gr.skip(), gr.skip()]
                return [*said, *self._show(session, found, scores=True)]
        entries = index.entries[:SHOWN] if index else ()
        some = [Found(each.path, 0.0, each.sha256) for each in entries]  # until something is searched for
        shown = self._show(session, some, scores=False)
        return [*said, *shown]

    def stop(self, session: SearchSession) -> list[Any]:
        """Once it is stopped, what waits is let go of too. -> report, stop, gallery, ask"""
        session.waiting.clear()
        report, _, *page = self.settle(session)
        return [report, gr.update(interactive=False), *page]

    def start_over(self, session: SearchSession) -> list[Any]:
        """-> report, stop, gallery, ask, words, picture"""
        session.index, session.query, session.let_go = None, None, False
        session.files.clear()
        session.small.clear()
        return [*self.stop(session), "", None]

    # They are found.

    def find(self, session: SearchSession, words: str | None, picture: str | None) -> list[Any]:
        """-> gallery, ask, where the picture stands, which is opened if it takes part"""
        index = filled(used_index(session))
        self.serving.allowance.take(pictures=bool(picture))
        query = words or "", picture
        found = self._found(index, query)
        session.query = query
        return [*self._show(session, found, scores=True), gr.update(open=True) if picture else gr.skip()]

    def _found(self, index: PictureIndex, query: tuple[str, str | None]) -> list[Found]:
        return self.serving.searcher.get().search(*query, index=index, count=SHOWN)

    def choose(self, session: SearchSession, clicked: gr.SelectData) -> Any:
        """A picture of the gallery was clicked. -> ask"""
        session.chosen = session.shown[int(clicked.index)].sha256  # type: ignore[arg-type]
        return gr.update(visible=True)

    def ask_about(self, session: SearchSession, composed: Composed | None) -> list[Any]:
        """The picture goes into the Image tab's composer. -> composer, tabs"""
        path = self._file_of(session.chosen or "", session)
        if path is None:
            raise UserError(
                "This index came without its pictures. Choose them above as well, to ask about them."
            )
        composed = composed or NOTHING
        return [composed | {"files": [*composed["files"], path]}, gr.Tabs(selected="Image")]

    def find_similar(
        self, session: SearchSession, conversation: Conversation, composed: Composed | None
    ) -> list[Any]:
        """Pictures like the last one in the Image tab. -> gallery, ask, where the picture stands, words, picture, tabs"""
        asked = [*conversation.exchanges, composed_exchange(composed or NOTHING)]
        pictures = [path for exchange in asked for path in exchange.pictures]
        if not pictures:
            raise UserError("Please add a picture first: similar ones are looked for on the Search tab.")
        if not used_index(session):
            raise UserError("There are no pictures to search in yet. Choose some on the Search tab first.")
        shown = self.find(session, "", pictures[-1])
        return [*shown, "", pictures[-1], gr.Tabs(selected="Search")]

    def compare(self, picture: str | None, names: str | None) -> dict[str, float]:
        if not picture:
            raise UserError("Please choose a picture first.")
        choices = checked_names(split_names(names or ""))
        self.serving.allowance.take(pictures=1)
        return dict(self.serving.searcher.get().classify(picture, choices))

    # An index is saved and loaded.

    def save(self, session: SearchSession) -> str:
        index = used_index(session)
        if not index:
            raise UserError("There is no index to save yet. Choose some pictures first.")
        current_caller().hold(index.vectors.nbytes)
        file = Path(get_upload_folder(), secrets.token_hex(16), "pictures.safetensors")
        return str(index.save(file))

    def load(self, session: SearchSession, file: str) -> list[Any]:
        """What is in the file is added to what is there. -> report, stop, gallery, ask"""
        if session.reading:
            raise UserError("Pictures are being read. Load the index when that is done, or stop it first.")
        loaded = self.serving.searcher.get().load_index(file)
        self._make_room(session, len(loaded))
        index = self._index_of(session)
        new = [entry for entry in loaded.entries if not index.has(entry.sha256)]
        index.add(new, loaded.only(new).vectors)
        index.report = Report(added=len(new))
        session.query = None
        return self.settle(session)

    def _index_of(self, session: SearchSession) -> PictureIndex:
        index = session.index or self.serving.searcher.get().new_index()
        if session.let_go:
            gr.Warning(LET_GO)
        session.index, session.let_go, session.used = index, False, time.monotonic()
        self.sessions.add(session)
        return index

    def _make_room(self, session: SearchSession, more: int) -> None:
        """Of other visitors, let go of the indexes that were used least lately until so many more pictures find room:
        Gradio keeps those of closed pages. UserError where this one's own would grow too large."""
        if len(session.index or ()) + more > MAX_INDEXED:
            raise UserError(
                f"An index on this page holds at most {MAX_INDEXED:,} pictures. Start over, or choose fewer."
            )
        too_many = sum(len(each.index or ()) for each in self.sessions) + more
        too_many -= MAX_HELD_BYTES // (4 * self.serving.searcher.get().aligner.dims[0])
        others = [each for each in self.sessions if each is not session and not each.reading]
        for each in sorted(others, key=lambda other: other.used):
            if too_many > 0 and each.index:
                too_many -= len(each.index)
                each.index, each.let_go = None, True
        if too_many > 0:
            raise UserError(
                "Too many pictures of all visitors are held here now. Please choose fewer, or try again later."
            )

    # The page follows.

    def _said_of(self, session: SearchSession) -> str:
        index = session.index
        if index is None or not (index or index.report.total):
            return report_line(INVITATION)
        said = index.report.sentences(len(index))
        if any(each.sha256 not in session.files for each in index.entries):
            said.append(WITHOUT_PICTURES)
        return report_line(" ".join(f"<span>{escape(each, quote=False)}</span>" for each in said))

    def _show(self, session: SearchSession, found: Sequence[Found], scores: bool) -> list[Any]:
        session.shown, session.chosen = list(found), None
        tiles = [self._tile(each, session, scores) for each in found]
        return [
            gr.update(value=tiles, selected_index=None, preview=False, visible=bool(tiles)),
            gr.update(visible=False),
        ]

    def _tile(self, found: Found, session: SearchSession, scores: bool) -> Tile:
        name = Path(found.path).name
        shown = self._shown_of(found.sha256, session) or card(name)
        return shown, f"{found.score:.2f} · {name}" if scores else name

    def _shown_of(self, sha256: str, session: SearchSession) -> str | None:
        small = session.small.get(sha256)
        if small and Path(small).is_file():
            return small
        path = None
        with suppress(UserError, OSError):  # no room: its name stands for what browsers cannot show
            if path := self._file_of(sha256, session):
                session.small[sha256] = path = small_file(path)
        return path

    def _file_of(self, sha256: str, session: SearchSession) -> str | None:
        """A file that browsers can show; None where only the index is here, or the upload's time is up."""
        path = session.files.get(sha256)
        if path is None or not Path(path).is_file():
            return None
        if Path(path).suffix.lower() not in BROWSERS_SHOW:
            session.files[sha256] = shown_file(path)
        return session.files[sha256]


def used_index(session: SearchSession) -> PictureIndex | None:
    """The visitor's index, if there is one. Raises UserError where it had to make room."""
    if session.let_go:
        raise UserError(LET_GO)
    session.used = time.monotonic()
    return session.index


def report_line(html: str) -> str:
    return f'<p class="report">{html}</p>'


def progress_bar(report: Report, seconds: float) -> str:
    """How far the embedding has come after so many seconds."""
    left = seconds / max(1, report.done) * (report.total - report.done)
    remaining = f", about {left:,.0f} s left" if report.done < report.total else ""
    bar = f'<progress value="{report.done}" max="{report.total}" aria-label="Pictures embedded"></progress>'
    return report_line(f"{bar} {report.done:,} of {report.total:,} pictures{remaining}")


def card(name: str) -> Image.Image:
    """In place of a picture that is not here: its name."""
    image = Image.new("RGB", (320, 240), GREY)
    lines = [name[start : start + 24] for start in range(0, min(len(name), 96), 24)]
    ImageDraw.Draw(image).multiline_text((16, 16), "\n".join(lines), DARK_GREY, ImageFont.load_default(20))
    return image
