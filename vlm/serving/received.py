"""The files that people sent: which of the paths that a browser names may be opened, what browsers can show of them, and
the pictures among many, those in zips unpacked, all of it bounded."""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder

from vlm.errors import UserError
from vlm.inputs.images import PictureFile, open_image
from vlm.inputs.zips import unpack_pictures
from vlm.serving.assets import ASSETS
from vlm.serving.callers import current_caller

BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}  # few of them know TIFF
MAX_INDEXED = 10_000  # in one index of the page
LARGE_BYTES = 1024**2  # of a picture that a gallery shows smaller: 24 phone photographs are 100 MB
SMALL_SIDE = 800  # pixels
MAX_BYTES_AT_ONCE = 1024**3  # of the pictures sent together, unpacked


def received(path: str) -> str | None:
    """The path, if it is of an upload or of an example, and still there. Folders of uploads are named by what is in the
    files, so nobody can guess them."""
    try:
        found = Path(path).resolve()
        folders = Path(get_upload_folder()).resolve(), (ASSETS / "examples").resolve()
        known = any(found.is_relative_to(folder) for folder in folders)
        return path if known and found.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null character, links in a circle
        return None


def shown_file(path: str) -> str:
    """The file itself, or a PNG of it among the uploads. UserError if it is no picture."""
    picture = open_image(path)
    if Path(path).suffix.lower() in BROWSERS_SHOW:
        return path
    current_caller().hold(3 * picture.width * picture.height)
    return save_pil_to_cache(picture, get_upload_folder(), Path(path).stem, "png")


def small_file(path: str) -> str:
    """What stands for a picture among others: the file itself or, of a large one, a small JPEG among the uploads."""
    if Path(path).stat().st_size <= LARGE_BYTES:
        return path
    picture = open_image(path)
    picture.thumbnail((SMALL_SIDE, SMALL_SIDE))
    current_caller().hold(picture.width * picture.height)
    return save_pil_to_cache(picture, get_upload_folder(), Path(path).stem, "jpeg")


@contextmanager
def chosen_pictures(files: Sequence[str]) -> Iterator[list[PictureFile]]:
    """Pictures by the names that people gave them. What is unpacked lies among the uploads and is deleted with old ones,
    or at once where an error leaves the `with`.

    Files that are no pictures stay in the list: whoever opens them says so."""
    folder = Path(get_upload_folder(), secrets.token_hex(16))  # nobody can guess where it is
    try:
        yield _chosen([Path(file) for file in files], folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _chosen(paths: Sequence[Path], folder: Path) -> list[PictureFile]:
    """`folder` is for what is unpacked."""
    if not paths:
        raise UserError("Please choose some pictures, or a zip of them.")
    pictures: list[PictureFile] = []
    size = 0
    for number, path in enumerate(paths):
        is_zip = path.suffix.lower() == ".zip"
        more = _unpacked(path, folder / str(number)) if is_zip else [PictureFile(path, path.name)]
        pictures += more
        size += sum(each.path.stat().st_size for each in more)
        if len(pictures) > MAX_INDEXED:
            raise UserError(f"These are more than {MAX_INDEXED:,} pictures. Please choose fewer.")
        if size > MAX_BYTES_AT_ONCE:
            raise UserError(
                f"These pictures have more than {MAX_BYTES_AT_ONCE // 2**20} MB. Please choose fewer at once."
            )
    return pictures


def _unpacked(path: Path, folder: Path) -> list[PictureFile]:
    folder.mkdir(parents=True)
    return list(unpack_pictures(path, folder, current_caller().hold))
