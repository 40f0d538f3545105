"""A LLaVA from elsewhere is served as it was: Transformers' own class gives the same scores for the same prompt."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.tiny_llava import SIDE, rename_as_before, save_llava, save_lora_checkpoint, save_tiny_adapter
from vlm import load_assistant
from vlm.adapters import import_adapter
from vlm.config import ModelConfig
from vlm.model.adapter import load_adapter, lora_folder
from vlm.model.adapter_folder import PICKLES, adapter_config, find_adapter
from vlm.model.prompts import PromptTurn, collate
from vlm.model.vlm import VisionLanguageModel, build_model

ARCHITECTURES = ("phi3", "llama")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava") / request.param, request.param)


def pictures(count: int, side: int = SIDE) -> list[Image.Image]:
    drawn = np.random.default_rng(count)
    return [Image.fromarray(drawn.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def in_float32(config: ModelConfig) -> ModelConfig:
    return replace(config, language=replace(config.language, dtype="float32", quantisation="none"))


def imported_model(checkpoint: Path, folder: Path) -> VisionLanguageModel:
    import_adapter(str(checkpoint), folder)
    model = build_model(in_float32(adapter_config(folder)), "cpu")
    load_adapter(model, folder)
    return model.eval()


@torch.inference_mode()
def our_scores(model: VisionLanguageModel, turns: list[PromptTurn], shown: list[Image.Image]) -> torch.Tensor:
    batch = collate([model.encode(turns)], model.language.pad_id)
    features = model.eyes.vision.see(shown) if shown else None
    embeds = model.arrange(batch, features).embeds
    return model.language.causal(inputs_embeds=embeds).logits[0]


@torch.inference_mode()
def their_scores(
    checkpoint: Path, messages: list[dict], shown: list[Image.Image], llava: torch.nn.Module | None = None
) -> torch.Tensor:
    processor = AutoProcessor.from_pretrained(checkpoint)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    begun = bool(processor.tokenizer.bos_token) and text.startswith(processor.tokenizer.bos_token)
    inputs = processor(text=text, images=shown or None, return_tensors="pt", add_special_tokens=not begun)
    llava = llava or LlavaForConditionalGeneration.from_pretrained(checkpoint).eval()
    inputs.pop("token_type_ids", None)
    return llava(**inputs).logits[0]


def asked(checkpoint: Path, question: str, count: int) -> list[dict]:
    if (checkpoint / "chat_template.jinja").is_file() and checkpoint.name == "llama":
        parts = [{"type": "image"}] * count + [{"type": "text", "text": question}]
        return [{"role": "user", "content": parts}]
    return [{"role": "user", "content": "<image>\n" * count + question}]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_scores_are_transformers_own(checkpoint: Path, count: int, tmp_path: Path) -> None:
    model, shown = imported_model(checkpoint, tmp_path / "adapter"), pictures(count)
    ours = our_scores(model, [PromptTurn("What is this?", picture_tags=("",) * count)], shown)
    theirs = their_scores(checkpoint, asked(checkpoint, "What is this?", count), shown)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-4), (ours - theirs).abs().max()
    if count:
        reversed_pictures = [picture.rotate(180) for picture in shown]
        other = our_scores(
            model, [PromptTurn("What is this?", picture_tags=("",) * count)], reversed_pictures
        )
        assert not torch.allclose(ours[-1], other[-1], atol=1e-2)


def test_files_with_the_names_of_before_are_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(checkpoint, tmp_path / checkpoint.name))
    rename_as_before(old)
    turns, shown = [PromptTurn("What?", picture_tags=("",))], pictures(1)
    one, other = (imported_model(each, tmp_path / each.parent.name / "a") for each in (checkpoint, old))
    assert torch.equal(our_scores(one, turns, shown), our_scores(other, turns, shown))


def test_the_class_token_stays_where_the_checkpoint_keeps_it(tmp_path: Path) -> None:
    checkpoint = save_llava(tmp_path / "phi3", "phi3", "full")
    model, shown = imported_model(checkpoint, tmp_path / "adapter"), pictures(1)
    assert adapter_config(tmp_path / "adapter").vision.features == "patches"
    ours = our_scores(model, [PromptTurn("What?", picture_tags=("",))], shown)
    assert torch.allclose(ours, their_scores(checkpoint, asked(checkpoint, "What?", 1), shown), atol=1e-4)


def test_a_checkpoint_without_a_lora_is_the_same_model_with_the_adapter_off(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = imported_model(checkpoint, tmp_path / "adapter")
    assert not model.language.has_lora and lora_folder(tmp_path / "adapter") is None
    turns = [PromptTurn("What?")]
    with model.language.lora(False):
        off = our_scores(model, turns, [])
    assert torch.equal(off, our_scores(model, turns, []))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_adapter(tmp_path_factory.mktemp("trained"), "llama")


def test_a_lora_of_the_original_code_is_switched_on_and_off(trained: Path, tmp_path: Path) -> None:
    checkpoint = save_lora_checkpoint(tmp_path / "checkpoint", trained)
    model = imported_model(checkpoint, tmp_path / "adapter")
    before = build_model(in_float32(adapter_config(trained)), "cpu")
    load_adapter(before, trained)
    turns, shown = [PromptTurn("What?", picture_tags=("",))], pictures(1)
    on, expected = our_scores(model, turns, shown), our_scores(before.eval(), turns, shown)
    assert torch.allclose(on, expected, atol=1e-4)
    with model.language.lora(False), before.language.lora(False):
        off = our_scores(model, turns, shown)
        assert torch.allclose(off, our_scores(before, turns, shown), atol=1e-4)
    assert not torch.allclose(on, off, atol=1e-2)
    assert not [file for file in (tmp_path / "adapter").rglob("*") if file.suffix in PICKLES]


@pytest.mark.slow
def test_a_checkpoint_is_served_as_it_is_with_any_preset(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path))
    monkeypatch.setattr("vlm.chat.assistant._load_transcriber", lambda speech: None)
    assistant = load_assistant("embedded", str(checkpoint), "cpu")
    answer = assistant.answer("What is this?", images=pictures(1))
    assert (answer.route, answer.model, answer.engine) == ("image", checkpoint.name, "torch")
    assert answer.tokens > 0 and assistant.adapter.startswith(checkpoint.name)
    assert assistant.answer("What is this?").route == "text"
    assert find_adapter(str(checkpoint)) == find_adapter(str(checkpoint))
