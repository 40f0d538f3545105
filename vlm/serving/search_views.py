"""What the Search tab shows in words and pictures of its own."""

from PIL import Image, ImageDraw, ImageFont

from vlm.chat.index import Report

GREY, DARK_GREY = (226, 232, 240), (71, 85, 105)


def report_line(html: str) -> str:
    return f'<p class="report">{html}</p>'


def progress_bar(report: Report, seconds: float) -> str:
    """How far the embedding has come after so many seconds."""
    left = seconds / max(1, report.done) * (report.total - report.done)
    remaining = f", about {left:,.0f} s left" if report.done < report.total else ""
    bar = f'<progress value="{report.done}" max="{report.total}" aria-label="Pictures embedded"></progress>'
    return report_line(f"{bar} {report.done:,} of {report.total:,} pictures{remaining}")


def card(name: str) -> Image.Image:
    """In place of a picture that is not here: its name."""
    image = Image.new("RGB", (320, 240), GREY)
    lines = [name[start : start + 24] for start in range(0, min(len(name), 96), 24)]
    ImageDraw.Draw(image).multiline_text((16, 16), "\n".join(lines), DARK_GREY, ImageFont.load_default(20))
    return image
