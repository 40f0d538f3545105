"""Who may use the endpoint: whoever has the key; without one, programs of this machine only.

VLM_API_KEY is the key. On a host that others reach, and on a Space, the endpoint is off until it is set. Pages from
elsewhere, in a browser on this machine, are kept away from all routes by vlm/serving/guard.py. VLM_PICTURE_HOSTS lists the
hosts from which pictures may be fetched, none otherwise.
"""

import secrets

from starlette.requests import Request

from vlm.serving.environment import ServerSettings
from vlm.serving.openai.errors import ApiError

KEY = "VLM_API_KEY"
PICTURE_HOSTS = "VLM_PICTURE_HOSTS"


async def check_access(settings: ServerSettings, request: Request) -> None:
    """ApiError for whoever may not use the endpoint."""
    if settings.api_key:
        _check_key(settings.api_key, request)
    elif settings.public:
        raise ApiError(403, f"The API is off here. Whoever runs this page can set {KEY} to switch it on.")


def _check_key(key: str, request: Request) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode("latin-1"), key.encode())  # as headers are decoded
    if scheme.lower() != "bearer" or not same:
        raise ApiError(
            401,
            "The API key is missing or wrong. Send it as Authorization: Bearer KEY.",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
