"""What programs call about pictures without questions: the endpoints /search and /classify.

The first line and the arguments of each docstring are its description, also over MCP. Nothing is kept between calls.
"""

from pathlib import Path
from typing import Any

import gradio as gr

from vlm.chat.index import PictureIndex
from vlm.chat.indexing import add_pictures
from vlm.chat.search import check_query, split_names
from vlm.errors import UserError
from vlm.serving.chosen_files import chosen_pictures
from vlm.serving.plain_errors import plainly
from vlm.serving.search_tab import EMBEDDING, SEARCHING
from vlm.serving.shared_searcher import SharedSearcher


class SearchEndpoints:
    def __init__(self, shared: SharedSearcher, cache: Path, temporary_files: set[str]) -> None:
        self.shared, self.cache, self.temporary_files = shared, cache, temporary_files

    def search(
        self,
        words: str,
        pictures: list[str] | None,
        picture: str | None = None,
        index: str | None = None,
        count: float = 24,
    ) -> list[dict[str, Any]]:
        """Find pictures by words, by another picture, or by both. Returns their names and scores, best first.

        Args:
            words: What to look for, such as a dog on a beach; may be empty where a picture is given.
            pictures: The pictures to search in, as files, or a zip of them; may be left out where an index is given.
            picture: A picture to find similar ones to, as a file, or nothing.
            index: A saved index to search in, as a file, or nothing.
            count: The most pictures to return.
        """
        check_query(words or "", picture)
        searched = self._index(pictures, index)
        found = self.shared.get().search(words or "", picture, index=searched, count=int(count))
        return [{"picture": Path(each.path).name, "score": round(each.score, 4)} for each in found]

    def classify(self, picture: str | None, names: str) -> dict[str, float]:
        """Tell which of some names fits a picture best. Returns each name's probability, the likeliest first.

        Args:
            picture: The picture, as a file.
            names: The names to choose from, separated by commas, such as cat, dog, bird.
        """
        if not picture:
            raise UserError("Please send a picture.")
        return dict(self.shared.get().classify(picture, split_names(names or "")))

    def _index(self, pictures: list[str] | None, file: str | None) -> PictureIndex:
        searcher = self.shared.get()
        index = searcher.load_index(file) if file else searcher.new_index()
        if pictures or not file:
            chosen = chosen_pictures(pictures or [], self.cache, self.temporary_files)
            for _ in add_pictures(index, chosen, searcher.aligner.embed_pictures):
                pass
        if not index:
            raise UserError(f"None of the pictures could be read. {index.report.broken[0].problem}")
        return index


def publish_search(shared: SharedSearcher) -> None:
    """The endpoints' own components are not on the page."""
    words = gr.Textbox(label="Words", visible=False)
    pictures = gr.File(label="Pictures", file_count="multiple", visible=False)
    picture = gr.Image(label="Picture", type="filepath", visible=False)
    index = gr.File(label="Index", visible=False)
    count = gr.Number(24, precision=0, minimum=1, maximum=1000, label="Count", visible=False)
    names = gr.Textbox(label="Names", visible=False)
    result = gr.JSON(label="Result", visible=False)
    endpoints = SearchEndpoints(shared, Path(pictures.GRADIO_CACHE), pictures.temp_files)
    for function, inputs, options in (
        (endpoints.search, [words, pictures, picture, index, count], EMBEDDING),
        (endpoints.classify, [picture, names], SEARCHING),
    ):
        button = gr.Button(visible=False)
        button.click(plainly(function), inputs, result, api_name=function.__name__, **options)
