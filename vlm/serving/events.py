"""How the page's events reach the server: which of them wait for the model, and which are answered at once.

All events that use the model wait in one queue, which lets in as many at once as the engine decodes together.
"""

from typing import Any

import gradio as gr

MAX_WAITING = 20  # questions in the queue; whoever comes next is asked to try again
MODEL = "model"

# Events that occur while an earlier one is under way are sent as well. Otherwise the browser would drop the answer to a
# question that follows closely upon a stop.
ALWAYS: dict[str, Any] = {"trigger_mode": "multiple", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = ALWAYS | {"queue": False, "show_progress": "hidden"}
# Gradio shows the message of an error only for queued events, so these are queued, without a limit.
MAY_REFUSE: dict[str, Any] = AT_ONCE | {"queue": True, "concurrency_limit": None, "trigger_mode": "once"}


def uses_model(parallel: int) -> dict[str, Any]:
    """Options of an event that waits for the model, which answers `parallel` questions at once."""
    return {"concurrency_id": MODEL, "concurrency_limit": parallel}


def change_limit(page: gr.Blocks, parallel: int) -> None:
    """Let the queue of a running page admit `parallel` questions at once. Gradio has no public call for that: it takes
    an event's limit when the event is first used, and later only lowers it."""
    for function in page.fns.values():
        if function.concurrency_id == MODEL:
            function.concurrency_limit = parallel
    queue = page._queue.event_queue_per_concurrency_id.get(MODEL)
    if queue:
        queue.concurrency_limit = parallel
