"""The files that this page has received, or shows as examples: which of the paths that a browser names may be opened."""

from pathlib import Path

from vlm.serving.assets import ASSETS


class Received:
    """`cache` is the folder that uploads go to. Its folders are named by what is in the files, so nobody can guess them."""

    def __init__(self, cache: Path) -> None:
        self.folders = [cache.resolve(), (ASSETS / "examples").resolve()]

    def __call__(self, path: str) -> str | None:
        """The path, if it is one of these files and still there."""
        try:
            found = Path(path).resolve()
            known = any(found.is_relative_to(folder) for folder in self.folders)
            return path if known and found.is_file() else None
        except (OSError, ValueError):  # a name too long, or with a null character
            return None
