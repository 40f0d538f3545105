"""A language model that is trained whole, GPT-2 without a chat template, behind patches and words in one sequence."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.tiny import PREFIX, colour_batch, tiny_config, tiny_eyes, tiny_model, tiny_tokenizer
from training.scores.batch_answers import FeatureQuestion, answer_in_batches
from vlm.config import LanguageConfig, LoraConfig, ModelConfig
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, restore_adapter, save_adapter
from vlm.model.adapter_fit import with_own_language
from vlm.model.adapter_folder import LORA, find_adapter
from vlm.model.fusion import build_fusion
from vlm.model.language import LanguageModel, build_language
from vlm.model.prompts import IGNORE, VISUAL, PromptTurn
from vlm.model.vlm import VisionLanguageModel

CAPTIONS = {"red": "Red.", "lime": "Green.", "blue": "Blue.", "white": "White."}


def gpt2() -> VisionLanguageModel:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    ends = {"eos_token_id": 2, "bos_token_id": 2}
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, **ends)
    language = LanguageModel(GPT2LMHeadModel(config), tokenizer)
    return VisionLanguageModel(tiny_eyes(), build_fusion(PREFIX, language.causal), language)


def whole_config() -> ModelConfig:
    return replace(tiny_config(), lora=LoraConfig(rank=0))


def train(model: VisionLanguageModel, steps: int) -> float:
    batch, features = colour_batch(model, CAPTIONS)
    parameters = [each for part in model.train_only("projector+language").values() for each in part]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch._asdict(), patch_features=features)["loss"]
        loss.backward()
        optimizer.step()
    return loss.item()


def test_without_a_template_the_prompt_is_plain_and_only_the_answer_is_learned() -> None:
    model = gpt2()
    ids, labels = model.encode([PromptTurn("Which?", "Red.", ("",))], "")
    tokenizer = model.language.tokenizer
    assert ids[:4] == [VISUAL] * 4
    assert tokenizer.decode(ids[4:]) == "\nWhich?\nRed.<|im_end|>\n"
    assert tokenizer.decode([id for id in labels if id != IGNORE]) == "Red.<|im_end|>"
    assert tokenizer.decode(model.encode([PromptTurn("Which?")], "Look.").ids) == "Look.\nWhich?\n"


@pytest.mark.slow
def test_projector_and_language_model_overfit_four_captions() -> None:
    model = gpt2()
    encoder = {name: each.clone() for name, each in model.eyes.vision.state_dict().items()}
    assert train(model, 200) < 0.05
    assert all(torch.equal(each, encoder[name]) for name, each in model.eyes.vision.state_dict().items())
    _, features = colour_batch(model, CAPTIONS)
    asked = [FeatureQuestion("Which?", each) for each in features]
    assert answer_in_batches(model.eval(), asked, "Look.") == list(CAPTIONS.values())


def test_the_adapter_folder_holds_the_language_model_and_no_lora(tmp_path: Path) -> None:
    model = gpt2()
    train(model, 3)
    save_adapter(model, tmp_path / "adapter", whole_config(), {}, torch.float32)
    folder = find_adapter(str(tmp_path / "adapter"))
    assert not any((folder / part).exists() for part in LORA)
    batch, features = colour_batch(model, CAPTIONS)
    expected = model.eval()(**batch._asdict(), patch_features=features)["loss"]
    for load in (load_adapter, restore_adapter):
        again = gpt2()
        load(again, folder)
        assert torch.equal(again.eval()(**batch._asdict(), patch_features=features)["loss"], expected)
        assert again.language.trained_whole  # and is saved again
    served = with_own_language(whole_config(), folder).language
    language = build_language(LanguageConfig(served.weights, dtype="float32"), "cpu")
    state = language.model.state_dict()
    assert all(torch.equal(each, state[name]) for name, each in model.language.model.state_dict().items())


def test_a_copy_of_the_folder_without_its_language_model_is_refused(tmp_path: Path) -> None:
    model = gpt2()
    train(model, 1)
    save_adapter(model, tmp_path / "adapter", whole_config(), {}, torch.float32)
    shutil.rmtree(tmp_path / "adapter" / "language")
    with pytest.raises(UserError, match="language/model.safetensors missing"):
        find_adapter(str(tmp_path / "adapter"))


def test_an_adapter_without_one_leaves_the_language_model_to_the_preset(tmp_path: Path) -> None:
    save_adapter(tiny_model(), tmp_path / "adapter", tiny_config(), {})
    assert not (tmp_path / "adapter" / "language").exists()
    assert with_own_language(tiny_config(), tmp_path / "adapter") == tiny_config()


def test_a_language_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    model = gpt2()
    model.train_only("projector+language")
    save_adapter(model, tmp_path / "adapter", whole_config(), {})
    with pytest.raises(UserError, match="damaged or incomplete"):
        load_adapter(tiny_model(lora=False), tmp_path / "adapter")


def test_it_is_trained_whole_only_without_a_lora_and_in_float32() -> None:
    with pytest.raises(UserError, match="set lora.rank to 0"):
        tiny_model().train_only("projector+language")
    model = gpt2()
    model.language.bfloat16()
    with pytest.raises(UserError, match="set language.dtype to float32"):
        model.train_only("projector+language")
