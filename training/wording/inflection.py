"""inflect, which takes more than two seconds to import: only what asks for a plural or an article pays for it."""

from functools import cache
from typing import Any


@cache
def inflector() -> Any:
    import inflect

    return inflect.engine()
