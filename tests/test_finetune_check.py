"""What cannot be trained is refused before anything is read or loaded."""

from pathlib import Path

import pytest

from training import finetune
from training.config import TrainingConfig
from vlm.errors import UserError


@pytest.mark.parametrize("lora", ["{rank: 8}", "{rank: 0}"])
def test_a_model_in_float16_is_refused_with_what_to_choose(tmp_path: Path, lora: str) -> None:
    """With a LoRA it would die after the projector's stage, and without one train without loss scaling."""
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"name: mine\nlanguage: {{dtype: float16}}\nlora: {lora}\n", encoding="utf-8")
    stage = TrainingConfig().projector_stage
    with pytest.raises(
        UserError, match="float16 cannot be trained. Set language.dtype .*'mine' to bfloat16, or"
    ):
        finetune.check(TrainingConfig(model=str(preset), joint_stage=stage))
