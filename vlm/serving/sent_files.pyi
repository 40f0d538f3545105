"""Files that come from outside: the component of an endpoint that takes them, and none that fetches them.

Unlike `gr.File`, `SentFiles` copies nothing, leaves no empty file behind, and describes itself without references to
definitions, which Gradio loses where it nests one description in another (`PointerToNowhere` in clients of MCP).
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.data_classes import FileData

from vlm.serving.arguments import NOT_FETCHED, is_address

class SentFiles(gr.File):
    """One file, or `several`. It is not on the page. `example` is the name of one in the API's documentation."""

    is_template = True  # for Gradio: the browser's part is that of gr.File

    def __init__(self, label: str, example: str, several: bool = False) -> None:
        super().__init__(label=label, file_count="multiple" if several else "single", visible=False)
        self.data_model = None  # what is sent is checked in vlm/serving/arguments.py
        self.several, self.example = several, example

    def api_info(self) -> dict[str, Any]:
        schema = (ListFiles if self.several else FileData).model_json_schema()
        schema["additional_description"] = schema.pop("description", None)
        return schema

    def example_payload(self) -> Any:
        one = {"path": self.example, "meta": {"_type": "gradio.FileData"}}
        return [one] if self.several else one

    def example_value(self) -> Any:
        return [self.example] if self.several else self.example

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        return None if url_or_file_path is None else str(url_or_file_path)
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

def fetch_nothing(page: gr.Blocks) -> None:
    """Let no component of the page fetch an address that a request names in place of a file, as Gradio's do."""
    for block in page.blocks.values():
        if isinstance(block, Component) and not isinstance(block, SentFiles):
            _keep_here(block)

def _keep_here(component: Component) -> None:
    move = component.async_move_resource_to_block_cache

    async def move_what_is_here(url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is not None and is_address(str(url_or_file_path)):
            raise gr.Error(NOT_FETCHED, print_exception=False)
        return await move(url_or_file_path)

    component.async_move_resource_to_block_cache = move_what_is_here  # type: ignore[method-assign]
