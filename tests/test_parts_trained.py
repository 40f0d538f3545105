"""Presets of other parts than the shipped ones: trained by the command's own function, saved, loaded and asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_phi import training_on
from tests.tiny import picture
from tests.tiny_phi import phi_tokenizer, save_preset, tiny_phi_config
from training import finetune
from training.config import StageConfig
from vlm import load_assistant
from vlm.config import ModelConfig
from vlm.config_reader import PartConfig
from vlm.errors import UserError
from vlm.model.connectors.q_former import QFormer

pytestmark = pytest.mark.usefixtures("undrawn")
CROSS = PartConfig("cross-attention", {"every": 1, "heads": 2, "head_size": 8})
Q_FORMER = PartConfig("q-former", {"queries": 3, "layers": 2, "width": 16, "heads": 2})
RESAMPLER = PartConfig("resampler", {"latents": 3, "width": 16, "heads": 2, "head_size": 8})


def preset_of(folder: Path, connector: PartConfig, fusion: PartConfig, rank: int) -> ModelConfig:
    config = tiny_phi_config(folder)
    language = replace(config.language, quantisation="none", dtype="float32")
    vision = replace(config.vision, features="patches")
    lora = replace(config.lora, rank=rank)
    return replace(config, vision=vision, language=language, connector=connector, fusion=fusion, lora=lora)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("connector", "fusion", "rank", "files"),
    [
        (RESAMPLER, CROSS, 0, {"fusion.safetensors"}),
        (Q_FORMER, PartConfig("fused", {"mode": "gate"}), 4, {"fusion.safetensors", "lora"}),
        (PartConfig("linear"), PartConfig("fused"), 0, set()),
    ],
    ids=["resampler, cross-attention", "q-former, gated, LoRA", "linear, added"],
)
def test_a_preset_of_other_parts_is_trained_and_served(
    tmp_path: Path, connector: PartConfig, fusion: PartConfig, rank: int, files: set[str]
) -> None:
    preset = save_preset(preset_of(tmp_path, connector, fusion, rank), tmp_path)
    joint = StageConfig("projector+lora" if rank else "projector", epochs=2)
    training = replace(training_on(tmp_path, preset), joint_stage=joint, gradient_checkpointing=False)
    adapter = finetune.run(training)
    written = {path.name for path in adapter.iterdir()}
    assert files == written & {"fusion.safetensors", "lora"}
    assistant = load_assistant(preset, str(adapter))
    red, blue = (assistant.answer("Which?", images=[picture(colour)]) for colour in ("red", "blue"))
    assert (red.stage, red.route, red.adapter) == ("done", "image", "run")
    assert red.tokens > 0 and blue.tokens > 0
    typed, base = assistant.answer("Which?"), load_assistant(preset).answer("Which?")
    assert (typed.route, typed.text) == ("text", base.text)


@pytest.mark.slow
def test_a_q_former_that_reads_questions_is_trained_and_served_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = {"vocabulary": 120, "text_length": 12, "instructions": str(tmp_path / "phi")}
    config = preset_of(
        tmp_path, replace(Q_FORMER, settings=Q_FORMER.settings | reads), PartConfig("prefix"), 4
    )
    preset = save_preset(config, tmp_path)
    training = replace(training_on(tmp_path, preset), gradient_checkpointing=False)
    asked: list[Any] = []
    forward = QFormer.forward

    def noted(connector: QFormer, features: Any, question_ids: Any = None) -> Any:
        asked.extend([] if question_ids is None else [question_ids])
        return forward(connector, features, question_ids)

    monkeypatch.setattr(QFormer, "forward", noted)
    adapter = finetune.run(training)
    assert len(asked) >= 12  # steps of two stages
    assert {phi_tokenizer().decode(row) for ids in asked for row in ids} == {"Which?"}
    assistant = load_assistant(preset, str(adapter))
    look = assistant.pipeline.writer.look
    which, again, what = (
        look([picture("red")], asked)[0].visual_tokens for asked in ("Which?", "Which?", "What?")
    )
    assert torch.equal(which, again) and not torch.allclose(which, what)
    answer = assistant.answer("Which?", images=[picture("red")])
    assert (answer.stage, answer.route) == ("done", "image") and answer.tokens > 0
    few = replace(config.connector, settings=config.connector.settings | {"vocabulary": 5})
    preset = save_preset(replace(config, connector=few), tmp_path)
    with pytest.raises(
        UserError, match="connector.vocabulary is 5, and the text encoder .* word pieces. Set it to that"
    ):
        finetune.run(replace(training, model=preset, output=str(tmp_path / "other")))


def test_a_stage_for_a_lora_is_refused_before_anything_loads_where_the_preset_has_none(
    tmp_path: Path,
) -> None:
    config = preset_of(tmp_path, PartConfig("linear"), PartConfig("prefix"), 0)
    nowhere = replace(config.language, weights=str(tmp_path / "absent"))
    preset = save_preset(replace(config, language=nowhere), tmp_path)
    with pytest.raises(
        UserError, match="no LoRA .lora.rank is 0. for the stage 'projector.lora'. Train: projector"
    ):
        finetune.run(training_on(tmp_path, preset))


def test_parts_that_do_not_fit_are_refused_before_anything_loads(tmp_path: Path) -> None:
    grid = PartConfig("pooled-grid", {"side": 2})
    config = preset_of(tmp_path, grid, PartConfig("prefix"), 4)
    (tmp_path / "phi" / "model.safetensors").unlink()
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match="pooled-grid needs a square grid, and the encoder's 5 features are none"
    ):
        finetune.run(training_on(tmp_path, save_preset(config, tmp_path)))
    sparse = PartConfig("cross-attention", {"every": 3})
    config = replace(config, connector=PartConfig("linear"), fusion=sparse)
    with pytest.raises(UserError, match="fusion.every must be from 1 to the language model's 2 layers"):
        finetune.run(training_on(tmp_path, save_preset(config, tmp_path)))
