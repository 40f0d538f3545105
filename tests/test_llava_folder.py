"""An adapter with CLIP's eyes is written as Transformers' LLaVA, whose scores are those of the model here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.test_llava_import import asked, our_scores, pictures, their_scores
from tests.tiny_llava import SIDE, save_llava, save_tiny_adapter
from vlm.adapters import Export, export_adapter, import_adapter
from vlm.model.adapter import load_adapter
from vlm.model.adapter_folder import adapter_config
from vlm.model.prompts import PromptTurn
from vlm.model.vlm import VisionLanguageModel, build_model

FLOAT32 = Export("llava", "float32")
QUESTION = [PromptTurn("What is this?", picture_tags=("",))]


def model_of(adapter: Path) -> VisionLanguageModel:
    model = build_model(adapter_config(adapter), "cpu")
    load_adapter(model, adapter)
    return model.eval()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A connector with statistics and a LoRA, on a Qwen whose vocabulary has no room for a picture's token."""
    return save_tiny_adapter(tmp_path_factory.mktemp("trained"), "qwen2")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_exported_folder_gives_the_scores_of_the_adapter(
    adapter: Path, count: int, tmp_path: Path
) -> None:
    exported = export_adapter(str(adapter), FLOAT32, tmp_path / "out")
    shown = pictures(count)
    turns = [PromptTurn("What is this?", picture_tags=("",) * count)]
    ours = our_scores(model_of(adapter), turns, shown)
    theirs = their_scores(exported, asked(exported, "What is this?", count), shown)
    assert torch.allclose(ours, theirs[:, : ours.shape[1]], atol=1e-4)


def test_a_lora_kept_beside_is_the_difference_between_base_and_adapter(adapter: Path, tmp_path: Path) -> None:
    exported = export_adapter(str(adapter), replace(FLOAT32, keep_lora=True), tmp_path / "out")
    model, shown = model_of(adapter), pictures(1)
    with model.language.lora(False):
        base = our_scores(model, QUESTION, shown)
    plain = their_scores(exported, asked(exported, "What is this?", 1), shown)
    assert torch.allclose(base, plain[:, : base.shape[1]], atol=1e-4)
    llava = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(exported), exported / "lora"
    )
    adapted = their_scores(exported, asked(exported, "What is this?", 1), shown, llava.eval())
    ours = our_scores(model, QUESTION, shown)
    assert torch.allclose(ours, adapted[:, : ours.shape[1]], atol=1e-4)
    assert not torch.allclose(ours, base, atol=1e-2)
    assert not [name for name, _ in llava.named_parameters() if "vision_tower" in name and "lora_" in name]


def test_the_exported_processor_prepares_pictures_as_they_are_prepared_here(
    adapter: Path, tmp_path: Path
) -> None:
    exported = export_adapter(str(adapter), FLOAT32, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(exported)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, 2 * SIDE, 3), dtype=np.uint8))
    theirs = processor.image_processor(wide, return_tensors="pt").pixel_values[0]
    ours = model_of(adapter).eyes.vision.preprocess(wide)
    assert torch.allclose(ours, theirs, atol=0.02)


def test_what_was_imported_can_be_exported_and_imported_again(tmp_path: Path) -> None:
    first = save_llava(tmp_path / "llama", "llama")
    import_adapter(str(first), tmp_path / "adapter")
    second = export_adapter(str(tmp_path / "adapter"), FLOAT32, tmp_path / "again" / "llama")
    shown = pictures(2)
    messages = asked(first, "What is this?", 2)
    one, other = (their_scores(each, messages, shown) for each in (first, second))
    assert torch.allclose(one, other, atol=1e-5)
    import_adapter(str(second), tmp_path / "adapter-again")
    assert adapter_config(tmp_path / "adapter-again").vision.features == "grid"
