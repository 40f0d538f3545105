"""The vectors of pictures with their paths: searched exactly, kept in one safetensors file.

A search is one matrix product. Among 100,000 vectors of 512 numbers that takes less than 40 ms on one thread
(tests/benchmarks/search.py), so there is no approximate index here that could miss a picture, and no package for one.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from vlm.errors import UserError, plain_load_errors
from vlm.weights.tensor_files import save_tensors

KIND = "picture index 1"
NAMES_SHOWN = 3
ROOM = 1024  # vectors that an index holds before it grows for the first time


class Entry(NamedTuple):
    """A picture of the index. `size` and `modified` (nanoseconds) tell whether its file changed without reading it."""

    path: str
    sha256: str
    size: int = 0
    modified: int = 0


class Found(NamedTuple):
    path: str
    score: float  # the cosine between picture and query
    sha256: str


class Broken(NamedTuple):
    name: str
    problem: str  # a sentence that names it


@dataclass
class Report:
    """What happened when an index was last brought up to date; `done` of `total` files were looked at."""

    total: int = 0
    done: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    broken: list[Broken] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)  # names of pictures whose content was there before

    def sentences(self, count: int) -> list[str]:
        """For people; the index holds `count` pictures. Each is a text of the page."""
        parts = ((self.added, "new"), (self.changed, "changed"), (self.removed, "removed"))
        news = ", ".join(f"{number:,} {what}" for number, what in parts if number)
        said = [f"{_pictures(count)} in the index{f' ({news})' if news else ''}."]
        if self.done < self.total:
            left = self.total - self.done
            said.append(f"{left:,} were not looked at, because it was stopped: choose them again to go on.")
        if self.copies:
            same = "has the same content as one" if len(self.copies) == 1 else "have the same content as some"
            said.append(f"{len(self.copies):,} {same} already there ({_some(self.copies)}).")
        if len(self.broken) == 1:
            said += ["1 was left out.", self.broken[0].problem]
        elif self.broken:
            names = [each.name for each in self.broken]
            said.append(f"{len(names):,} cannot be read here and were left out ({_some(names)}).")
        return said


class PictureIndex:
    """Unit vectors of one aligner, with their entries. Grows while others search in it."""

    def __init__(self, aligner: str, dim: int) -> None:
        self.aligner, self.dim = aligner, dim
        self.report = Report()
        self._lock = Lock()
        self._entries: list[Entry] = []  # only ever grows, so that a place stays valid
        self._places: dict[str, int] = {}  # SHA-256 -> place
        # Rows for pictures to come, so that no small vector lies between the large pictures that come and go in memory.
        self._rows = torch.empty(ROOM, dim)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        return self._entries

    @property
    def vectors(self) -> Tensor:
        """[N, D], float32. A view: rows that are there never change."""
        with self._lock:
            return self._rows[: len(self._entries)]

    def add(self, entries: Sequence[Entry], vectors: Tensor) -> None:
        """Those whose content is not in the index yet; `vectors` [B, D]. Another thread may have added some meanwhile."""
        with self._lock:
            new = [place for place, entry in enumerate(entries) if entry.sha256 not in self._places]
            start, stop = len(self._entries), len(self._entries) + len(new)
            if stop > len(self._rows):
                grown = torch.empty(max(stop, 2 * len(self._rows)), self.dim)
                grown[:start] = self._rows[:start]
                self._rows = grown
            self._rows[start:stop] = vectors[new]
            for place, number in enumerate(new, start):
                self._places[entries[number].sha256] = place
                self._entries.append(entries[number])

    def has(self, sha256: str) -> bool:
        return sha256 in self._places

    def vector(self, sha256: str) -> Tensor:
        """[D]"""
        return self.vectors[self._places[sha256]]

    def joined(self, other: "PictureIndex") -> "PictureIndex":
        """A new index: this one, and of `other` what is under other paths."""
        paths = {entry.path for entry in self.entries}
        index = self.only(self.entries)
        more = [entry for entry in other.entries if entry.path not in paths]
        index.add(more, other.only(more).vectors)
        return index

    def only(self, entries: Sequence[Entry]) -> "PictureIndex":
        """A new index of these entries, which are in this one by their content."""
        index = PictureIndex(self.aligner, self.dim)
        index.add(entries, self.vectors[[self._places[entry.sha256] for entry in entries]])
        return index

    def search(self, query: Tensor, count: int) -> list[Found]:
        """The `count` nearest pictures, nearest first. `query` [D] has unit length."""
        scores = self.vectors @ query
        best = torch.topk(scores, min(count, len(scores)))
        found = (
            (self._entries[place], score)
            for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        return [Found(entry.path, score, entry.sha256) for entry, score in found]

    def save(self, file: str | Path) -> Path:
        """Write the index, all or none. The file's entries are JSON in its metadata."""
        file = Path(file).expanduser()
        vectors = self.vectors.contiguous()
        entries = json.dumps(self._entries[: len(vectors)])  # as ASCII: a file's name need not be text
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"kind": KIND, "aligner": self.aligner, "entries": entries}
            save_tensors({"vectors": vectors}, file, metadata)
        except OSError as problem:
            raise UserError(
                f'The index "{file}" could not be written ({problem.strerror or problem}).'
            ) from problem
        return file

    @classmethod
    def load(cls, file: str | Path, aligner: str) -> "PictureIndex":
        """A saved index of this aligner. UserError where it is another's, or no index."""
        file = Path(file).expanduser()
        if not os.path.isfile(file):  # False, and no error, where the name is too long
            raise UserError(f'There is no index "{file.name}". Check its name.')
        with plain_load_errors(f'"{file.name}" is no index that can be read here', "Choose another file."):
            with file.open("rb"), safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                _check_origin(file.name, metadata, aligner)
                vectors = opened.get_tensor("vectors")
            entries = _read_entries(metadata["entries"])
            _check_vectors(vectors, entries)
        index = cls(aligner, vectors.shape[1])
        index.add(entries, vectors)
        return index


def _check_origin(name: str, metadata: dict[str, str], aligner: str) -> None:
    if metadata.get("kind") != KIND:
        raise UserError(f'"{name}" holds no index of pictures. Choose a file that was saved as one.')
    made_by = metadata.get("aligner", "")[:100]
    if made_by != aligner:
        raise UserError(
            f'The index "{name}" was made by the aligner {made_by}, and the one in use is {aligner}: their vectors cannot '
            "be compared. Index the pictures again."
        )


def _read_entries(text: str) -> list[Entry]:
    """From a file that anyone may have written."""
    items, entries = json.loads(text), []
    for item in items if isinstance(items, list) else [items]:
        match item:
            case [str(path), str(sha256), int(size), int(modified)]:
                entries.append(Entry(path, sha256, size, modified))
            case _:
                raise ValueError("an entry is malformed")
    return entries


def _check_vectors(vectors: Tensor, entries: Sequence[Entry]) -> None:
    if not entries or vectors.ndim != 2 or len(vectors) != len(entries) or vectors.dtype != torch.float32:
        raise ValueError("vectors and entries do not match")
    if len({entry.sha256 for entry in entries}) < len(entries):
        raise ValueError("a picture is in it twice")
    if not torch.isfinite(vectors).all() or not torch.allclose(
        vectors.norm(dim=1), torch.ones(()), atol=1e-2
    ):
        raise ValueError("the vectors are damaged")


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
