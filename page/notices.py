"""Errors -> one plain sentence on the page; what nobody foresaw goes to the log in full."""

import logging
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from vlm import UserError

logger = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong here and was noted in the log. Please try again."


def plain_sentence(problem: Exception) -> str:
    """What to show for `problem`. Notices are HTML, and a message can hold the name of a file."""
    if isinstance(problem, UserError):
        return escape(str(problem), quote=False)
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
