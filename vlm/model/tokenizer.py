"""The language model's tokenizer. Its chat template, where it has one, can be split at questions and answers."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from vlm.config import LanguageConfig
from vlm.errors import UserError
from vlm.model.prompts import can_split
from vlm.weights.resolve import plain_weight_errors


def load_tokenizer(folder: Path, config: LanguageConfig, whole: bool = False) -> Any:
    """`folder`: where the files of the weights are. `whole`: nothing is left to the class of the model, as in what
    `write_tokenizer` makes. Raises UserError where their template cannot be split."""
    with plain_weight_errors(config.weights):
        if whole:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        else:
            from transformers import AutoTokenizer  # takes a second to import

            tokenizer = AutoTokenizer.from_pretrained(folder)
    if config.template:
        tokenizer.chat_template = config.template
    if tokenizer.chat_template and not can_split(tokenizer):
        raise UserError(
            f"The chat template of {config.weights!r} does not write each question and answer once, in their order. "
            "Set language.template in a copy of the preset."
        )
    return tokenizer
