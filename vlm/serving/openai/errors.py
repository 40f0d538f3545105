"""What goes wrong with a request -> OpenAI's form of an error, with the right status."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from vlm.engines.remote import Unavailable
from vlm.errors import UserError
from vlm.serving.limits import NotNow, TryLater
from vlm.serving.plain_errors import UNEXPECTED

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A refusal. `code` is for programs; `parameter` names what in the request is to be mended."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        parameter: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.parameter = status, code, parameter
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.parameter, "code": self.code}}


def api_error(problem: Exception) -> ApiError:
    """A sentence of ours stays as it is; what nobody foresaw goes into the log."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, Unavailable | NotNow):
        return ApiError(503, str(problem))
    if isinstance(problem, TryLater):  # clients wait so long, and ask again by themselves
        return ApiError(
            429, str(problem), "rate_limit_exceeded", headers={"Retry-After": str(problem.seconds)}
        )
    if isinstance(problem, UserError):
        return ApiError(400, str(problem))
    if isinstance(problem, HTTPException):
        return ApiError(problem.status_code, problem.detail)
    logger.error("Unexpected error", exc_info=problem)
    return ApiError(500, UNEXPECTED)


class OpenAIRoute(APIRoute):
    """A route whose errors have OpenAI's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as problem:
                error = api_error(problem)
                return JSONResponse(error.body, error.status, error.headers)

        return guarded
