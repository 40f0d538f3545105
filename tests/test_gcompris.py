"""GCompris: Qt resource files, what is read of them, and how file names become phrases."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from training.sources import gcompris
from training.sources.qt_resources import list_entries, read_entry
from vlm.errors import UserError

ZLIB, FOLDER, ZSTD = 1, 2, 4


def write_resource(file: Path, files: dict[str, tuple[int, bytes]], folders: str = "resource") -> None:
    """{name: (flags, stored bytes)} -> a resource file of version 2 with all of them in one folder."""
    names, contents, offsets = b"", b"", {}
    for name in ("", folders, *files):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHIIQ", 0, FOLDER, 1, 1, 0)
    tree += struct.pack(">IHIIQ", offsets[folders], FOLDER, len(files), 2, 0)
    for name, (flags, stored) in files.items():
        tree += struct.pack(">IHIIQ", offsets[name], flags, 0, len(contents), 0)
        contents += struct.pack(">I", len(stored)) + stored
    head = 20
    starts = struct.pack(">3I", head, head + len(tree), head + len(tree) + len(contents))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"qres" + struct.pack(">I", 2) + starts + tree + contents + names)


def packed(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + zlib.compress(content)


def webp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), "green").save(buffer, "WEBP")
    return buffer.getvalue()


def test_entries_of_a_resource_file_are_read_plain_and_compressed(tmp_path):
    file = tmp_path / "a.rcc"
    write_resource(file, {"é.txt": (0, b"plain"), "b.txt": (ZLIB, packed(b"zlib" * 99)), "c": (ZSTD, b"?")})
    entries = {entry.path: entry for entry in list_entries(file)}
    assert list(entries) == ["resource/é.txt", "resource/b.txt", "resource/c"]
    assert read_entry(file, entries["resource/é.txt"]) == b"plain"
    assert read_entry(file, entries["resource/b.txt"]) == b"zlib" * 99
    with pytest.raises(ValueError, match="resource/c in .*a.rcc is compressed with zstd"):
        read_entry(file, entries["resource/c"])


def test_what_is_no_resource_file_or_a_broken_one_is_named(tmp_path):
    whole = tmp_path / "whole.rcc"
    write_resource(whole, {"a.txt": (ZLIB, packed(b"x" * 500)), "b.txt": (ZLIB, b"no zlib data")})
    data = whole.read_bytes()
    loop = data[:52] + struct.pack(">I", 0) + data[56:]  # the second folder's first child: the root
    for number, broken in enumerate((b"", b"PK\3\4" + bytes(40), data[:60], data[:-2], data[:-40], loop)):
        file = tmp_path / f"broken{number}.rcc"
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=f"broken{number}.rcc"):
            list_entries(file)
    entry, bad = list_entries(whole)
    for wrong in (bad, entry._replace(size=entry.size - 9)):
        with pytest.raises(ValueError, match="whole.rcc is"):
            read_entry(whole, wrong)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("measuringTape3", "a measuring tape"),
        ("red_panda", "a red panda"),
        ("scissors2", "a pair of scissors"),
        ("polar_bear", "a polar bear"),
        ("spoons", "some spoons"),
    ],
)
def test_file_names_become_phrases(name, phrase):
    assert gcompris.phrase_of(name) == phrase


def test_listed_names_may_lack_the_number_and_carry_a_phrase():
    shown = gcompris.what_is_shown("tool: plier|cuttingTool=a pair of pliers, hammer; bird: duck=")
    assert shown == {
        "plier": ("tool", "a pair of pliers"),
        "cuttingTool": ("tool", "a pair of pliers"),
        "hammer": ("tool", "a hammer"),
        "duck": ("bird", ""),
    }
    assert gcompris.names_of("01_cat.svg") == ("01_cat.svg", "01_cat", "cat")


def test_a_broken_resource_file_of_the_package_is_one_sentence(tmp_path):
    file = tmp_path / "usr/share/gcompris-qt/rcc" / f"{next(iter(gcompris.SHOWN))}.rcc"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"qres")
    with pytest.raises(UserError, match=f"{tmp_path} is damaged. Delete it"):
        gcompris.read(tmp_path)


def test_only_listed_pictures_are_read_with_their_kind(tmp_path):
    root = tmp_path / "usr/share/gcompris-qt/rcc"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>"
    folder = "gcompris/src/activities/x/resource"
    files = {"duck.webp": (0, webp()), "duck.svg": (ZLIB, packed(svg)), "farm-animals.svg": (0, svg)}
    write_resource(root / "explore_farm_animals.rcc", files, folder)
    write_resource(root / "lang.rcc", {"brain.webp": (0, webp()), "apple.webp": (0, webp())}, folder)
    write_resource(
        root / "categorization.rcc", {"screwDriver3.webp": (0, b""), "wrench1.webp": (0, webp())}, folder
    )
    found = {picture.path: picture for picture in gcompris.read(tmp_path)}
    assert {path: (p.kind, p.phrase, p.group) for path, p in found.items()} == {
        "gcompris/categorization/wrench1.webp": ("photo", "a wrench", "tool"),
        "gcompris/explore_farm_animals/duck.svg": ("drawing", "some ducks", "bird"),
        "gcompris/explore_farm_animals/duck.webp": ("photo", "a duck", "bird"),
        "gcompris/lang/brain.webp": ("drawing", "a brain", "body"),
    }
    assert {picture.load().size for picture in found.values()} == {(256, 192), (256, 256)}
