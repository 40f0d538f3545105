"""Pictures found by words, by another picture or by both, and a picture told apart by names (zero-shot classification).

from vlm import load_aligner
searcher = load_aligner()
print(searcher.search("a dog on a beach", index=searcher.index("photos")))
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlm.chat.answer import Picture
from vlm.chat.index import Found, PictureIndex
from vlm.chat.indexing import picture_files, update
from vlm.errors import UserError
from vlm.inputs.images import PictureFile, open_image
from vlm.weights.cache import cache_folder, writing

if TYPE_CHECKING:
    from vlm.model.aligner import Aligner

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # pictures done, pictures in all

KEPT_EVERY = 60.0  # seconds, while pictures are embedded; a kill costs no more than this
MAX_WORDS_CHARACTERS = 1_000
MAX_NAME_CHARACTERS = 200
MAX_NAMES = 1_000
# Of training, scores and serving alike; a longer list named no more validation pictures (training/trials.md)
TEMPLATES = ("{}", "a photo of a {}.")


class Searcher:
    """`identity` tells this aligner, with these weights, from all others."""

    def __init__(self, aligner: "Aligner") -> None:
        self.aligner, self.identity = aligner, aligner.identity  # it is computed from all weights

    def new_index(self) -> PictureIndex:
        return PictureIndex(self.identity, self.aligner.dims[0])

    def load_index(self, file: str | Path) -> PictureIndex:
        """UserError where it is another aligner's."""
        index = PictureIndex.load(file, self.identity)
        if index.dim != self.aligner.dims[0]:
            raise UserError(f'The index "{Path(file).name}" is damaged. Index the pictures again.')
        return index

    def index(
        self,
        source: str | Path | Iterable[str | Path],
        file: str | Path | None = None,
        progress: Progress | None = None,
    ) -> PictureIndex:
        """The index of a folder, or of files. `index.report` tells what is new, broken or there twice.

        It is kept in `file`, or for a folder in the cache, and next time only what changed is embedded."""
        kept = Path(file).expanduser() if file else None
        if isinstance(source, str | Path):
            folder = Path(source).expanduser()
            files = picture_files(folder)
            kept = kept or cached_file(folder, self.identity)
        else:
            files = [PictureFile(Path(path), path) for path in dict.fromkeys(map(str, source))]
        if not files:
            raise UserError("There are no pictures to index. Choose some.")
        known = self._known(kept, must_fit=file is not None)
        if file and known and not _share_pictures(known, files):
            raise UserError(
                f'The index "{Path(file).name}" is of other pictures, such as "{known.entries[0].path}". Give another '
                "file, or delete this one first."
            )
        index, steps = update(known, files, self.aligner.embed_pictures)
        kept_at = time.monotonic()
        try:
            for _ in steps:
                if progress:
                    progress(index.report.done, index.report.total)
                if kept and index and time.monotonic() - kept_at > KEPT_EVERY:
                    _keep(index.joined(known), kept, must=file is not None)
                    kept_at = time.monotonic()
        finally:  # what was embedded until it was stopped, and before, need not be embedded again
            is_whole = index.report.done == index.report.total
            if kept and index and index.entries != known.entries:
                _keep(index if is_whole else index.joined(known), kept, must=file is not None)
        check_some_read(index)
        return index

    def search(
        self, words: str | None = "", picture: Picture | None = None, *, index: PictureIndex, count: int = 24
    ) -> list[Found]:
        """The pictures nearest to the words, to the picture, or to both at once, nearest first."""
        if count < 1:
            raise UserError("Please ask for at least one picture.")
        return filled(index).search(self.query(words or "", picture, index.dim), int(count))

    def query(self, words: str, picture: Picture | None, dim: int) -> Tensor:
        """[D]: the mean of the unit vectors of what is given, at unit length again."""
        check_query(words, picture)
        parts = [self.aligner.embed_texts([words.strip()], dim)] if words.strip() else []
        if picture is not None:
            parts.append(self.aligner.embed_pictures([open_image(picture)], dim))
        return normalize(torch.cat(parts).mean(dim=0), dim=0)

    def classify(self, picture: Picture, names: str | Sequence[str]) -> list[tuple[str, float]]:
        """The names, or those between commas, with the probability that the picture shows each, likeliest first; together
        they make 1."""
        names = checked_names(split_names(names) if isinstance(names, str) else names)
        seen = self.aligner.embed_pictures([open_image(picture)])[0]
        scores = names_vectors(self.aligner, names) @ seen
        probabilities = torch.softmax(self.aligner.scale * scores, dim=0).tolist()
        return sorted(zip(names, probabilities, strict=True), key=lambda each: -each[1])

    def _known(self, file: Path | None, must_fit: bool) -> PictureIndex:
        """What was indexed before. A damaged file of the cache is made again; one that the person named is refused."""
        if file is None or not os.path.isfile(file):
            return self.new_index()
        try:
            return self.load_index(file)
        except UserError as problem:
            if must_fit:
                raise
            log.warning("%s It is made again.", problem)
            return self.new_index()


def _share_pictures(index: PictureIndex, files: Sequence[PictureFile]) -> bool:
    """Whether some are in both, as far as names tell: a folder may have moved."""
    names = {file.title for file in files}
    return any(Path(entry.path).name in names for entry in index.entries)


def names_vectors(aligner: "Aligner", names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
    """[N, D]: for each name the mean over the templates, at unit length."""
    texts = [template.replace("{}", name) for name in names for template in templates]
    vectors = aligner.embed_texts(texts)
    return normalize(vectors.view(len(names), len(templates), -1).mean(dim=1), dim=1)


def load_aligner(name: str = "embedded", device: str | None = None) -> Searcher:
    """`name` is a shipped aligner or a folder of one; `device` defaults to the best."""
    from vlm.model.alignment import load_aligner_model

    return Searcher(load_aligner_model(name, device or ("cuda" if torch.cuda.is_available() else "cpu")))


def check_some_read(index: PictureIndex) -> None:
    """Raises UserError where each picture that was to be in it is broken."""
    if not index:
        raise UserError(f"None of the pictures could be read. {index.report.broken[0].problem}")


def filled(index: PictureIndex | None) -> PictureIndex:
    """The index. Raises UserError where there is nothing to search in."""
    if not index:
        raise UserError("There are no pictures to search in yet. Choose some first.")
    return index


def check_query(words: str, picture: Picture | None) -> None:
    if len(words) > MAX_WORDS_CHARACTERS:
        raise UserError(
            f"The search has {len(words):,} characters and at most {MAX_WORDS_CHARACTERS:,} fit. Please shorten it."
        )
    if not words.strip() and picture is None:
        raise UserError("Please type what to look for, or choose a picture.")


def _keep(index: PictureIndex, file: Path, must: bool) -> None:
    """Save it. A cache that cannot be written costs time at the next search, and nothing else."""
    if must:
        index.save(file)
        return
    try:
        with writing(file.parent):  # another process may index the same folder
            index.save(file)
    except UserError as problem:
        log.warning("%s The pictures will be embedded again next time.", problem)


def cached_file(folder: Path, aligner: str) -> Path:
    """Where the index of a folder is kept for this aligner."""
    # of bytes: a folder's name need not be text
    named = os.fsencode(folder.resolve()) + f"\n{aligner}".encode()
    key = hashlib.sha256(named).hexdigest()[:32]
    return cache_folder() / "indexes" / f"{key}.safetensors"


def split_names(text: str) -> list[str]:
    """Names between commas or on lines of their own; a comma too many is no mistake."""
    return [name for name in text.replace("\n", ",").split(",") if name.strip()]


def checked_names(names: Sequence[str]) -> list[str]:
    names = [name.strip() for name in names]
    if not any(names):
        raise UserError("Please give the names to choose from, separated by commas.")
    if "" in names:
        raise UserError(f"Name {names.index('') + 1} is empty. Please write something between the commas.")
    if len(names) == 1:
        raise UserError(
            "Please give at least two names, separated by commas: one alone would always get 100 %."
        )
    if len(names) > MAX_NAMES:
        raise UserError(
            f"These are {len(names):,} names, and at most {MAX_NAMES:,} fit. Please leave some out."
        )
    lowered = [name.casefold() for name in names]
    repeated = next((name for name, low in zip(names, lowered, strict=True) if lowered.count(low) > 1), None)
    if repeated:
        raise UserError(f'The name "{repeated[:60]}" is there twice. Please leave it out once.')
    if longest := max(names, key=len)[MAX_NAME_CHARACTERS:]:
        raise UserError(
            f"A name has {MAX_NAME_CHARACTERS + len(longest):,} characters and at most {MAX_NAME_CHARACTERS} fit. "
            "Please shorten it."
        )
    return names
