"""How conversations lie in batches: those of like length together, in every epoch, and none lost."""

from collections import Counter

from more_itertools import chunked

from tests.test_several_pictures import row
from tests.tiny import tiny_tokenizer
from training.adapters.conversations import Conversations
from training.config import SourceConfig

ROWS = [
    row(f"picture{number}", "What is it?", "A dog." * (1 + 40 * (number % 2)), "name") for number in range(22)
]


def laid_out(epochs: int) -> Conversations:
    return Conversations(
        ROWS, {}, {}, tiny_tokenizer(), tokens_per_picture=4, system="", style="full",
        sources=[SourceConfig("tiny")], batch_size=4, epochs=epochs, tag_dropout=0.0, max_tokens=512,
        several_pictures=0.0, seed=0,
    )  # type: ignore[arg-type] # fmt: skip


def test_an_epoch_that_is_no_multiple_of_the_batch_mixes_no_lengths_in_those_after_it() -> None:
    examples = laid_out(epochs=6).examples
    lengths = [len(turns[0].answer) for turns in examples]
    mixed = [batch for batch in chunked(lengths, 4) if len(set(batch)) > 1]
    assert len(mixed) <= 6 + 1  # where an epoch's short ones end, and what is left over of all
    assert set(Counter(turns[0].row.picture for turns in examples).values()) == {6}


def test_the_batches_of_an_epoch_stay_where_more_epochs_follow() -> None:
    one, more = laid_out(epochs=1).examples, laid_out(epochs=3).examples
    assert one[:20] == more[:20] and len(one) == 22
    assert more == laid_out(epochs=3).examples
