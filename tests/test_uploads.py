"""All that is kept of what people send counts for UPLOADS_MB, by whichever route it came."""

import base64
import io
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from tests.conftest import served
from tests.test_search_tab import search_serving
from tests.test_server import TalkingAssistant, talking
from tests.test_tools import uploaded, use
from tests.tiny_aligner import tiny_searcher
from vlm.errors import UserError
from vlm.inputs.speech import Heard
from vlm.serving.callers import CALLER, Caller
from vlm.serving.environment import ServerSettings
from vlm.serving.search_endpoints import SearchEndpoints
from vlm.serving.searches import Searches, SearchSession
from vlm.serving.uploads import NoRoom, Uploads

pytestmark = pytest.mark.server

MEGABYTE = 2**20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def packed(file: Path, pictures: int) -> Path:
    """Pictures of a quarter of a megabyte that are a hundredth of it in the zip."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(content, "BMP")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(pictures):
            archive.writestr(f"{number}.bmp", content.getvalue())
    return file


@contextmanager
def site(folder: Path, megabytes: int, settings: ServerSettings | None = None) -> Iterator[str]:
    _, serving = talking(settings or ServerSettings(tools=True), words=1, seconds=0.0)
    uploads = Uploads(folder, megabytes * MEGABYTE)
    with served(serving, load_searcher=tiny_searcher, uploads=uploads) as address:
        yield address


def test_a_zip_s_pictures_are_counted_and_go_where_they_do_not_fit(folder: Path, tmp_path: Path) -> None:
    bomb, small = packed(tmp_path / "many.zip", 20), packed(tmp_path / "few.zip", 2)
    with site(folder, 2) as address:
        client = Client(address, verbose=False)
        with pytest.raises(AppError, match="no room for more files now"):
            client.predict("black", [handle_file(bomb)], api_name="/search")
        refused = use(address, "search", words="black", pictures=[uploaded(address, bomb)])
        assert refused.isError and "no room for more files now" in refused.content[0].text  # type: ignore[union-attr]
        assert size_of(folder) < MEGABYTE
        time.sleep(1.1)  # what was held for it is measured again
        assert client.predict("black", [handle_file(small)], api_name="/search")


def test_of_a_search_that_is_refused_or_fails_nothing_that_was_unpacked_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("gradio.Warning", told.append)
    file = packed(folder / "few.zip", 2)
    before, serving = size_of(folder), search_serving()
    for module, sentence in (("searches", "at most 1 pictures"), ("received", "more than 1 pictures")):
        with monkeypatch.context() as patch:
            patch.setattr(f"vlm.serving.{module}.MAX_INDEXED", 1)
            Searches(serving).take(session := SearchSession(), [str(file)])
            list(Searches(serving).embed(session))
        assert sentence in told.pop() and size_of(folder) == before
    broken = folder / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("broken.png", b"no picture")
    before = size_of(folder)
    with pytest.raises(UserError, match="None of the pictures could be read"):
        list(SearchEndpoints(serving).search("black", [str(broken)]))
    assert size_of(folder) == before
    monkeypatch.setattr(serving.searcher.get().aligner, "embed_pictures", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(SearchEndpoints(serving).search("black", [str(file)]))
    assert size_of(folder) == before


def test_the_search_tab_counts_zips_and_saved_indexes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("gradio.Warning", told.append)
    handlers = Searches(search_serving())
    uploads, session = Uploads(folder, MEGABYTE), SearchSession()
    token = CALLER.set(Caller("ann", uploads=uploads))
    try:
        handlers.take(session, [str(packed(tmp_path / "many.zip", 20))])
        list(handlers.embed(session))
        assert "no room for more files now" in told[0]
        assert size_of(folder) == 0
        uploads._measured = -10.0
        handlers.take(session, [str(packed(tmp_path / "few.zip", 2))])
        list(handlers.embed(session))
        assert session.index
        handlers.save(session)
        (folder / "held").write_bytes(bytes(MEGABYTE))
        uploads._measured = -10.0
        with pytest.raises(NoRoom):
            handlers.save(session)
    finally:
        CALLER.reset(token)


def test_what_is_written_counts_before_it_is_measured(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 10)
    uploads.hold(6)
    with pytest.raises(NoRoom):
        uploads.hold(5)
    uploads.hold(4)


def test_a_file_that_cannot_be_deleted_keeps_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    delete = Path.unlink

    def unlink(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "b":
            raise PermissionError("It is read now.")
        delete(path, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", unlink)
    Uploads(tmp_path, 10).sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_announced_counts_until_it_has_arrived(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 10)
    uploads.announce(9)
    uploads._measured = -10.0  # however slowly it comes
    with pytest.raises(NoRoom):
        uploads.announce(9)
    (tmp_path / "arrived").write_bytes(bytes(2))
    uploads.arrived(9)
    uploads._measured = -10.0
    assert uploads.size() == 2
    uploads.announce(8)


def test_a_small_body_with_a_file_as_text_counts_too(folder: Path) -> None:
    sent = "data:image/png;base64," + base64.b64encode(bytes(600_000)).decode()
    with site(folder, 1) as address:
        for last in (False, True):
            answered = use(address, "image", question="What?", images=[sent])
            assert answered.isError == last
        assert "no room for more files now" in answered.content[0].text  # type: ignore[union-attr]


def test_files_of_v1_lie_among_the_uploads_and_are_counted(folder: Path) -> None:
    with site(folder, 2) as address:

        def send(size: int) -> httpx.Response:
            return httpx.post(f"{address}v1/files", files={"file": ("a.png", bytes(size))})

        sent = send(MEGABYTE // 2)
        assert sent.status_code == 200 and size_of(folder) == MEGABYTE // 2
        time.sleep(1.1)
        (folder / "held").write_bytes(bytes(MEGABYTE))
        refused = send(MEGABYTE)
        assert refused.status_code == 507 and "no room for more files now" in refused.text
        assert httpx.delete(f"{address}v1/files/{sent.json()['id']}").status_code == 200
        assert size_of(folder) == MEGABYTE


def test_recordings_that_v1_listens_to_lie_among_the_uploads_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_there: list[int] = []

    def hear(_: TalkingAssistant, audio: str, language: str = "") -> Heard:
        lay_there.append(size_of(folder))
        return Heard("What is this?", 1.0, 0.1)

    monkeypatch.setattr(TalkingAssistant, "hear", hear)
    with site(folder, 2) as address:

        def send(size: int) -> httpx.Response:
            files = {"file": ("a.wav", bytes(size))}
            return httpx.post(f"{address}v1/audio/transcriptions", files=files, data={"model": "whisper-1"})

        assert send(MEGABYTE // 2).json() == {"text": "What is this?"}
        assert lay_there == [MEGABYTE // 2] and size_of(folder) == 0
        refused = send(3 * MEGABYTE)
        assert refused.status_code == 507 and "no room for more files now" in refused.text
