"""What goes wrong -> one plain sentence for the page or the caller of the API; the rest goes into the log."""

import logging
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

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

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as problem:
            raise gr.Error(plain_sentence(problem), print_exception=False) from problem

    return guarded
