"""The thumbs under an answer, the place for the right one, and what the page says of what is kept."""

from html import escape

from vlm.chat.conversation import Exchange

# A thumb up, turned by so many degrees: not every machine has a font with one.
DRAWN = (
    '<svg viewBox="0 0 24 24" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.8" '
    'stroke-linejoin="round" style="transform:rotate({}deg)" aria-hidden="true"><path d="M3 11h4v10H3z'
    'M7 11l5-9c2 0 3 1.5 2.5 3.5L14 9h6c1.5 0 2 1 1.7 2.3l-2 8c-.3 1-1 1.7-2.2 1.7H7"/></svg>'
)


def notice_of(folder: str) -> str:
    """What the page says at the thumbs."""
    return (
        "A thumb keeps the question, this answer, the right one if you give it, the picture, the model's name and the time "
        f"on this page's server, in its folder “{folder}”, to train on; press it again to take that back."
    )


def thumbs(exchange: Exchange) -> str:
    """The two buttons of an answer. The one that was pressed takes its vote back."""
    buttons = []
    for thumb, sign, name in (
        ("up", DRAWN.format(0), "Good answer"),
        ("down", DRAWN.format(180), "Bad answer"),
    ):
        given = exchange.voted is not None and exchange.voted.thumb == thumb
        pressed = str(given).lower()
        buttons.append(
            f'<button type="button" data-action="thumb" data-thumb="{thumb}" aria-pressed="{pressed}" '
            f'aria-label="{name}" title="{name}">{sign}</button>'
        )
    return "".join(buttons)


def place_for_the_right_answer(notice: str, last: bool) -> str:
    """Opened by the thumb down. What is kept is said in it, and always under the last answer."""
    said = f'<p class="note">{escape(notice)}</p>'
    inside = (
        '<label>The right answer, if you know it<textarea rows="2"></textarea></label>'
        '<div class="actions"><button type="button" data-action="send-thumb-down">Send</button>'
        '<button type="button" data-action="cancel-thumb-down">Cancel</button></div>'
    )
    return f'<div class="right-answer" hidden>{inside}{"" if last else said}</div>{said if last else ""}'
