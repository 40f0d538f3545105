"""The thumbs under an answer, the place for the right one, and what the page says of what is kept."""

from html import escape

from vlm.chat.conversation import Exchange


def notice_of(folder: str) -> str:
    """What the page says at the thumbs."""
    return (
        "A thumb keeps the question, this answer, the right one if you give it, the picture, the model's name and the time "
        f"on this page's server, in its folder “{folder}”, to train on; press it again to take that back."
    )


def thumbs(exchange: Exchange, notice: str) -> str:
    """The two buttons of an answer. The one that was pressed takes its vote back."""
    buttons = []
    for thumb, sign, name in (("up", "👍", "Good answer"), ("down", "👎", "Bad answer")):
        given = exchange.voted is not None and exchange.voted.thumb == thumb
        pressed = str(given).lower()
        buttons.append(
            f'<button type="button" data-action="thumb" data-thumb="{thumb}" aria-pressed="{pressed}" '
            f'aria-label="{name}" title="{name}. {escape(notice)}">{sign}</button>'
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
