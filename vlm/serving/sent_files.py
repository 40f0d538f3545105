"""Functions that programs call, and files that come from outside: the component that takes them, and none that fetches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from vlm.serving.arguments import NOT_FETCHED, is_web_address
from vlm.serving.plain_errors import plainly


def sent_files(label: str, example: str, several: bool = False) -> gr.File:
    """A component that takes one file, or `several`, and is not on the page. `example` is in the API's documentation.

    It takes whatever is sent as it is: that is checked in vlm/serving/arguments.py."""
    component = gr.File(label=label, file_count="multiple" if several else "single", visible=False)
    component.api_info()  # kept by the component; without its model it could not be made
    component.data_model = None
    one = {"path": example, "meta": {"_type": "gradio.FileData"}}
    component.example_payload = lambda: [one] if several else one  # type: ignore[method-assign]
    return component


def publish_function(
    function: Callable[..., Any], inputs: list[Any], outputs: Any, options: dict[str, Any]
) -> None:
    """An endpoint under the function's own name. `options` are those of the event."""
    button = gr.Button(visible=False)
    # without preprocess=False Gradio leaves an empty file for each that is sent
    button.click(plainly(function), inputs, outputs, api_name=function.__name__, preprocess=False, **options)


def fetch_nothing(page: gr.Blocks) -> None:
    """Let no component of the page fetch an address that a request names in place of a file, as Gradio's do."""
    for block in page.blocks.values():
        if isinstance(block, Component):
            _keep_here(block)


def _keep_here(component: Component) -> None:
    move = component.async_move_resource_to_block_cache

    async def move_what_is_here(url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is None or not is_web_address(str(url_or_file_path)):
            return await move(url_or_file_path)
        if component.data_model is None:  # an endpoint's, which knows this server's own addresses
            return str(url_or_file_path)
        raise gr.Error(NOT_FETCHED, print_exception=False)

    component.async_move_resource_to_block_cache = move_what_is_here  # type: ignore[method-assign]
