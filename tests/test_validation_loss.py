"""The validation loss is a mean over tokens, whatever the batches are."""

from pathlib import Path

import pytest
import torch

from tests.tiny import SYSTEM, picture, tiny_config, tiny_model
from training.adapters.conversations import Collator
from training.adapters.trainer import AdapterTrainer, training_arguments
from training.config import StageConfig, TrainingConfig
from vlm.model.prompts import IGNORE, PromptTurn

ANSWERS = {"red": "Red.", "lime": "A picture all of one color, which is green.", "blue": "It is blue."}


def test_the_validation_loss_is_the_mean_over_all_tokens_in_batches_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny_model().eval()
    features = model.eyes.vision.see([picture(name) for name in ANSWERS])
    examples = [
        {
            "encoded": model.encode([PromptTurn("What color?", answer, ("",))], SYSTEM),
            "patch_features": seen[None],
            "questions": ["What color?"],
        }
        for seen, answer in zip(features, ANSWERS.values(), strict=True)
    ]
    collate = Collator(model)
    with torch.no_grad():
        losses = [model(**collate([each]))["loss"].item() for each in examples]
    tokens = [sum(label != IGNORE for label in each["encoded"].labels[1:]) for each in examples]
    expected = sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)

    def evaluated(batch_size: int) -> float:
        config = TrainingConfig(batch_size=batch_size, validation_steps=1)
        trainer = AdapterTrainer(
            model_config=tiny_config(),
            training_config=config,
            parameter_groups=[],
            model=model,
            args=training_arguments(tmp_path, StageConfig(), config, "cpu", torch.float32),
            eval_dataset=examples,
            data_collator=collate,
        )
        return trainer.evaluate()["eval_loss"]

    assert sum(losses) / len(losses) != pytest.approx(expected, rel=1e-3)
    for batch_size in (1, 2, 3):
        assert evaluated(batch_size) == pytest.approx(expected, rel=1e-5)
