"""What programs call about pictures without questions: the endpoints /search and /classify.

The first line and the arguments of each docstring are its description. Nothing is kept between calls.
"""

import time
from collections.abc import Generator, Iterator
from typing import Any

import gradio as gr

from vlm.chat.index import PictureIndex
from vlm.chat.indexing import add_pictures
from vlm.chat.search import check_query, check_some_read, checked_names, split_names
from vlm.errors import UserError
from vlm.inputs.images import MAX_PICTURE_BYTES
from vlm.serving.arguments import file_of, files_of, text_of, whole_of
from vlm.serving.callers import current_caller
from vlm.serving.events import EMBEDDING, SEARCHING
from vlm.serving.received import MAX_INDEXED, chosen_pictures
from vlm.serving.sent_files import publish_function, sent_files
from vlm.serving.serving import Serving

MAX_INDEX_BYTES = 64 * 2**20
MAX_COUNT = 1000
REFRESH_SECONDS = 0.5
Results = list[dict[str, Any]]


class SearchEndpoints:
    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def search(
        self,
        words: str,
        pictures: list[str] | None,
        picture: str | None = None,
        index: str | None = None,
        count: float = 24,
    ) -> Iterator[Results]:
        """Find pictures by words, by another picture, or by both. Returns their names and scores, best first, and then
        those that could not be read, with the problem in place of a score.

        Args:
            words: What to look for, such as a dog on a beach; may be empty where a picture is given.
            pictures: The pictures to search in, as files, or a zip of them; may be left out where an index is given.
            picture: A picture to find similar ones to, as a file, or nothing.
            index: A saved index to search in, as a file, or nothing.
            count: The most pictures to return.
        """
        wanted = text_of(words, "words")
        similar = file_of(picture, "picture", MAX_PICTURE_BYTES)
        saved = file_of(index, "index", MAX_INDEX_BYTES)
        files = files_of(pictures, "pictures", MAX_INDEXED, MAX_PICTURE_BYTES)
        most = whole_of(count, "count")
        if not 1 <= most <= MAX_COUNT:
            raise UserError(f"The count must be between 1 and {MAX_COUNT}.")
        check_query(wanted, similar)
        self.serving.allowance.take(pictures=bool(similar))
        searched = yield from self._index(files, saved)
        found = self.serving.searcher.get().search(wanted, similar, index=searched, count=most)
        scored = [{"picture": each.path, "score": round(each.score, 4)} for each in found]
        yield [*scored, *({"picture": name, "problem": told} for name, told in searched.report.broken)]

    def classify(self, picture: str | None, names: str) -> dict[str, float]:
        """Tell which of some names fits a picture best. Returns each name's probability, the likeliest first.

        Args:
            picture: The picture, as a file.
            names: The names to choose from, separated by commas, such as cat, dog, bird.
        """
        file = file_of(picture, "picture", MAX_PICTURE_BYTES)
        if not file:
            raise UserError("Please send a picture.")
        choices = checked_names(split_names(text_of(names, "names")))
        self.serving.allowance.take(pictures=1)
        return dict(self.serving.searcher.get().classify(file, choices))

    def _index(self, pictures: list[str], file: str | None) -> Generator[Results, None, PictureIndex]:
        """Nothing is found while the pictures are embedded, but whoever waits can stop."""
        caller, shown = current_caller(), time.monotonic()
        searcher = self.serving.searcher.get()
        index = searcher.load_index(file) if file else searcher.new_index()
        if pictures or not file:
            self.serving.allowance.check_searched()
            with chosen_pictures(pictures) as chosen:
                self.serving.allowance.take_searched(len(chosen))
                for _ in add_pictures(index, chosen, searcher.aligner.embed_pictures):
                    caller.check()
                    if time.monotonic() - shown > REFRESH_SECONDS:
                        yield []
                        shown = time.monotonic()
                check_some_read(index)
        return index


def publish_search(serving: Serving) -> None:
    """The endpoints' own components are not on the page; what is sent is checked here."""
    words = gr.Textbox(label="Words", visible=False)
    pictures = sent_files("Pictures", "cat.jpg", several=True)
    picture = sent_files("Picture", "cat.jpg")
    index = sent_files("Index", "pictures.safetensors")
    count = gr.Number(24, precision=0, minimum=1, maximum=MAX_COUNT, label="Count", visible=False)
    names = gr.Textbox(label="Names", visible=False)
    result = gr.JSON(label="Result", visible=False)
    endpoints = SearchEndpoints(serving)
    for function, inputs, options in (
        (endpoints.search, [words, pictures, picture, index, count], EMBEDDING),
        (endpoints.classify, [picture, names], SEARCHING),
    ):
        publish_function(function, inputs, result, options)
