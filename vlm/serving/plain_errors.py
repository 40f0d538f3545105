"""What goes wrong -> one plain sentence for the page or the caller of the API; the rest goes into the log."""

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction

from vlm.errors import UserError

UNEXPECTED = "Something went wrong here and was noted in the log. Please try again."

logger = logging.getLogger(__name__)


def plain_sentence(problem: Exception) -> str:
    """What to show for `problem`. It is escaped: notices are HTML, and a message can hold the name of a file."""
    if isinstance(problem, UserError):
        return escape(str(problem), quote=False)
    if isinstance(problem, gr.Error):
        return str(problem.message)  # ZeroGPU raises these, for instance when a visitor's time is used up
    logger.error("Unexpected error", exc_info=problem)
    return UNEXPECTED


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose errors reach the page or the caller of the API as a plain sentence."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                yield from function(*arguments)
            except Exception as problem:
                raise gr.Error(plain_sentence(problem), print_exception=False) from problem
    else:

        @wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except Exception as problem:
                raise gr.Error(plain_sentence(problem), print_exception=False) from problem

    return guarded


def range_of(component: Any) -> tuple[float, float] | None:
    """The ends of a number on the page; None for what is no number, or any."""
    least, most = getattr(component, "minimum", None), getattr(component, "maximum", None)
    return None if least is None or most is None else (least, most)


class PlainBlocks(gr.Blocks):
    """Gradio's page, which refuses too few values for an endpoint without quoting them, in its answer and in the log, and
    says which number is out of its range."""

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        wanted = len(block_fn.inputs)
        if len(inputs) < wanted:
            raise gr.Error(
                f"/{block_fn.api_name} takes {wanted} values, and {len(inputs)} came. The client of Gradio fills in those "
                "left out.",
                print_exception=False,
            )
        if not block_fn.preprocess:
            return  # an endpoint, which checks its values itself
        for component, value in zip(block_fn.inputs, inputs, strict=False):
            ends = range_of(component)
            if ends and (value is None or isinstance(value, int | float) and not ends[0] <= value <= ends[1]):
                raise gr.Error(
                    f"{component.label}: choose a number between {ends[0]} and {ends[1]}.",
                    print_exception=False,
                )
