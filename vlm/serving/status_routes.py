"""/health for whoever watches the server."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from vlm.serving.switch import Serving


def status_routes(serving: Serving) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    def health() -> JSONResponse:
        """200 while questions are taken, 503 while a preset is changed or the server stops."""
        ready = serving.ready
        return JSONResponse(
            {"status": "ok" if ready else "busy", "preset": serving.preset}, 200 if ready else 503
        )

    return router
