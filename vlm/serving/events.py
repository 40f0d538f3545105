"""How the page's events reach the server: which of them wait for the model, and which are answered at once.

Events that use the model wait before the gate (vlm/serving/gate.py), together with those of all other routes.
"""

from typing import Any

# Events in Gradio's own queue: searches and embeddings; questions and looks wait before the gate.
MAX_EVENTS = 100
# Gradio lets all of these begin; they wait for the model before the gate, which knows whose turn it is.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": None}

# One visitor's pictures are embedded at a time, and searches do not wait for that.
EMBEDDING: dict[str, Any] = {"concurrency_id": "embedding", "concurrency_limit": 1}
SEARCHING: dict[str, Any] = {"concurrency_id": "searching", "concurrency_limit": 2}

# Events that occur while an earlier one is under way are sent as well. Otherwise the browser would drop the answer to a
# question that follows closely upon a stop.
ALWAYS: dict[str, Any] = {"trigger_mode": "multiple", "api_visibility": "private"}
UNQUEUED: dict[str, Any] = ALWAYS | {"queue": False, "show_progress": "hidden"}
# Gradio shows the message of an error only for queued events, so these are queued, without a limit.
QUEUED: dict[str, Any] = UNQUEUED | {"queue": True, "concurrency_limit": None, "trigger_mode": "once"}
