"""Who writes: a conversation -> text, as it grows. The reply pipeline asks, and does not know what is behind it.

There are two: `LocalWriter` has the model in this process, `RemoteWriter` asks a server that has it.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from vlm.chat.answer import Picture, Settings
from vlm.engines import Host
from vlm.model.prompts import PromptTurn


class Written(NamedTuple):
    """As much as there is of a text. `tokens` and `prompt_tokens` count what was written and read for it, `left_out` the
    earlier turns that did not fit. `ended` is True once the writer came to an end of its own."""

    text: str
    tokens: int
    prompt_tokens: int
    left_out: int = 0
    ended: bool = False


class Writer(Protocol):
    """`sees`: whether it has an adapter, without which it reads words only."""

    @property
    def engine(self) -> Host: ...

    @property
    def sees(self) -> bool: ...

    @property
    def reads_ahead(self) -> bool:
        """Whether what stands before a question about a picture may be read before the question is known."""
        ...

    def look(self, pictures: Sequence[Picture], question: str) -> list[Any]:
        """What of each picture goes into a prompt, in the writer's own form; its `tags` are in words, "" for none.
        `question`: what is asked where they are shown, which some connectors read."""
        ...

    def write(
        self,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[Any]],
        system: str | None,
        settings: Settings,
        begun: str = "",
    ) -> Generator[Written | None, None, None]:
        """The answer to the last turn; None now and then while nothing is new, so that whoever waits can stop. Closing the
        iterator stops the writing.

        `sights` has what `look` gave for the pictures of each turn: with any, the adapter is on; () for a conversation in
        words. `system`: None for the template's own. `begun` is what there is of the answer already, and stands at the
        head of what is written. Raises UserError."""
        ...

    def warm_up(self, image_system: str, text_system: str | None) -> Iterator[None]:
        """Make ready for the first answers, bit by bit; may run while others are written."""
        ...
