"""The language model in torch, as each kind of Transformers' models has it: its scores, its embeddings, its sizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

from tests.tiny import tiny_config, tiny_tokenizer
from training.scores.batch_answers import Reader
from vlm.config import LanguageConfig, load_model_config
from vlm.engines import Sampling
from vlm.engines.torch_engine import TorchEngine
from vlm.errors import UserError
from vlm.model.language import LanguageModel
from vlm.model.prompts import IGNORE
from vlm.model.sizes import check_fit
from vlm.model.vlm import build_model, text_size

TOKENIZER = tiny_tokenizer()
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# What each does behind its head
RESCALING: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0},
    "hyperclovax": {"logits_scaling": 4.0},
}


def tiny_language(kind: str, **more: Any) -> LanguageModel:
    causal = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **more))
    return LanguageModel(causal, TOKENIZER)


@pytest.mark.parametrize("kind", RESCALING)
def test_scores_are_those_of_the_models_own_forward_wherever_they_are_taken(kind: str) -> None:
    language = tiny_language(kind, **RESCALING[kind])
    ids = torch.randint(3, len(TOKENIZER), (2, 6))
    labels = ids.clone()
    labels[:, :2] = IGNORE
    present = torch.ones_like(ids)
    with torch.no_grad():
        embeds = language.embed(ids)
        expected = language.model(ids, labels=labels)
        states = language.causal.get_decoder()(inputs_embeds=embeds).last_hidden_state
        assert torch.allclose(language.scores(states), expected.logits, atol=1e-5)
        assert language(embeds, present, labels).item() == pytest.approx(expected.loss.item(), rel=1e-4)
        likeliest = expected.logits[:, -1].argmax(-1)
        assert torch.equal(Reader(language, present).read_prompts(embeds), likeliest)
    engine = TorchEngine(language, "CPU", 64, 128)
    assert [next(engine.stream([row], False, Sampling(1))) for row in ids.tolist()] == likeliest.tolist()


@pytest.mark.parametrize("kind", ["llama", "gemma", "gemma2", "gemma3_text"])
def test_the_size_of_text_is_that_of_the_embeddings_which_the_decoder_gets(kind: str) -> None:
    """Gemma multiplies them by the root of their width as it looks them up."""
    language = tiny_language(kind)
    with torch.no_grad():
        embeds = language.embed(torch.arange(len(TOKENIZER)))
    assert text_size(language) == pytest.approx(embeds.square().mean().sqrt().item(), rel=1e-5)
    scale = 1 if kind == "llama" else SIZES["hidden_size"] ** 0.5
    weight = language.model.get_input_embeddings().weight
    assert text_size(language) == pytest.approx(scale * weight.square().mean().sqrt().item(), rel=1e-3)


def test_of_a_model_that_sees_by_itself_the_language_model_is_loaded(tmp_path: Path) -> None:
    """Gemma 3 of 4 billion parameters and more has its sizes in a part of its configuration."""
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = half | {"image_size": 32, "patch_size": 16}
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=SIZES, vision_config=vision, mm_tokens_per_image=4)
    ).eval()
    whole.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    weights = LanguageConfig(weights=str(tmp_path), dtype="float32")
    model = build_model(replace(tiny_config(), language=weights), "cpu")
    assert model.language.embedding_size == SIZES["hidden_size"]
    assert not [name for name, _ in model.language.named_modules() if "vision" in name]
    ids = torch.randint(3, len(TOKENIZER), (1, 6))
    with torch.no_grad():
        assert torch.equal(model.language.model(ids).logits, whole(ids).logits)


def test_weights_without_a_language_model_are_refused_before_they_are_read(tmp_path: Path) -> None:
    for kind in ("qwen2_5_vl", "t5"):
        AutoConfig.for_model(kind).save_pretrained(tmp_path / kind)
        language = LanguageConfig(weights=str(tmp_path / kind))
        with pytest.raises(UserError, match="no language model can be loaded by itself"):
            check_fit(replace(tiny_config(), language=language))


def test_training_beyond_the_positions_of_a_model_is_refused_and_rotations_have_no_end() -> None:
    labels = torch.randint(3, len(TOKENIZER), (1, 20))
    for kind, more in {"llama": {"max_position_embeddings": 16}, "gpt2": {"n_positions": 16}}.items():
        language = tiny_language(kind, **more)
        embeds, present = language.embed(labels), torch.ones_like(labels)
        assert language(embeds[:, :16], present[:, :16], labels[:, :16]).isfinite()
        if kind == "gpt2":
            with pytest.raises(UserError, match="takes 20 positions with its pictures.*has 16.*max_tokens"):
                language(embeds, present, labels)
        else:
            assert language(embeds, present, labels).isfinite()


def test_a_preset_of_more_positions_than_its_model_has_is_refused() -> None:
    config = load_model_config("vit-gpt2")
    check_fit(config, max_tokens=1024 - 196)
    with pytest.raises(
        UserError, match="max_tokens is 1000.* has 1024 positions, of which a picture takes 196"
    ):
        check_fit(config, max_tokens=1000)
    with pytest.raises(UserError, match="language.context is 1025, and .* has 1024 positions"):
        check_fit(replace(config, language=replace(config.language, context=1025)))
    check_fit(load_model_config("phi-3.5"), max_tokens=10**6)
