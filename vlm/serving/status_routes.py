"""/health for whoever watches the server, and /metrics for Prometheus."""

from pathlib import Path

import psutil
from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from vlm.serving.serving import Serving
from vlm.serving.uploads import Uploads


def status_routes(serving: Serving, uploads: Uploads | None) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    def health() -> JSONResponse:
        """200 while questions are taken, 503 while a preset is changed or the server stops."""
        ready = serving.ready
        preset = Path(serving.model.preset).name  # whoever asks learns no folder of the server
        status = {"status": "ok" if ready else "busy", "preset": preset}
        return JSONResponse(status, 200 if ready else 503)

    @router.get("/metrics")
    def metrics() -> PlainTextResponse:
        gauges = {
            "vlm_ready": float(serving.ready),
            "vlm_questions_waiting": serving.waiting,
            "vlm_questions_under_way": serving.answering,
            "vlm_memory_bytes": psutil.Process().memory_info().rss,
            "vlm_uploads_bytes": uploads.size() if uploads else 0,
        }
        return PlainTextResponse(serving.measures.exposition(gauges), media_type="text/plain; version=0.0.4")

    return router
