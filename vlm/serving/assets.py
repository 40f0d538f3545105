"""Where the files lie that the page serves as they are."""

from pathlib import Path


def from_here(path: Path) -> Path:
    """The path from the working folder, if it lies below that: the page is not to tell where on the machine it is."""
    here = Path.cwd()
    return path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path.absolute()


ASSETS = from_here(Path(__file__).parent.parent.parent / "assets")
