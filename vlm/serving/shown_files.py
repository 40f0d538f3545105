"""Pictures that people sent -> files that browsers can show: few of them know TIFF."""

from pathlib import Path

from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder

from vlm.inputs.images import open_image
from vlm.serving.callers import current_caller

BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}


def shown_file(path: str) -> str:
    """The file itself, or a PNG of it among the uploads. UserError if it is no picture."""
    picture = open_image(path)
    if Path(path).suffix.lower() in BROWSERS_SHOW:
        return path
    current_caller().hold(3 * picture.width * picture.height)
    return save_pil_to_cache(picture, get_upload_folder(), Path(path).stem, "png")
