"""The composed model: where visual tokens land, what trains, the adapter switched off, generation, overfitting."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image

from tests.tiny import (
    SYSTEM,
    TinyVision,
    colour_batch,
    overfit,
    picture,
    shake_lora,
    tiny_config,
    tiny_eyes,
    tiny_model,
)
from vlm.engines import Prompt, Sampling
from vlm.engines.torch_engine import TorchEngine
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, save_adapter
from vlm.model.prompts import PromptTurn, encode, end_ids, segments
from vlm.model.vlm import VisionLanguageModel, text_size

ANSWERS = {"red": "r", "lime": "g", "blue": "b", "white": "w"}


def prompt_about(model: VisionLanguageModel, colour: str) -> Prompt:
    (sight,) = model.eyes.see([picture(colour)])
    ids = encode(model.language.tokenizer, [PromptTurn("Which?", "", (sight.tags,))], 4, SYSTEM).ids
    return segments(ids, [sight.visual_tokens])


def embedded(model: VisionLanguageModel, prompt: Prompt) -> torch.Tensor:
    """[1, T, Dl]"""
    parts = [
        part if isinstance(part, torch.Tensor) else model.language.embed(torch.tensor(part))
        for part in prompt
    ]
    return torch.cat(parts).unsqueeze(0)


def greedy_text(model: VisionLanguageModel, prompt: Prompt, adapter: bool = True) -> str:
    ends = end_ids(model.language.tokenizer)
    engine = TorchEngine(model.language, "CPU", 512, 1024)
    with closing(
        engine.stream(prompt, adapter, Sampling(12, repetition_penalty=1.0, end_ids=ends))
    ) as tokens:  # type: ignore[type-var]
        return model.language.tokenizer.decode([*tokens], skip_special_tokens=True)


def test_eyes_give_each_picture_its_visual_tokens_whatever_its_size_and_company() -> None:
    eyes = tiny_eyes().eval()
    images = [picture("red"), Image.new("RGB", (50, 20), "blue"), Image.new("RGB", (1, 1), "lime")]
    sights = eyes.see(images)
    assert [sight.visual_tokens.shape for sight in sights] == [(eyes.tokens_per_picture, 32)] * 3
    for image, sight in zip(images, sights, strict=True):
        (alone,) = eyes.see([image])
        assert torch.allclose(alone.visual_tokens, sight.visual_tokens, atol=1e-6)
    assert not torch.allclose(sights[0].visual_tokens, sights[1].visual_tokens, atol=1e-2)
    assert eyes.see([]) == []


def test_eyes_name_what_they_see_where_there_is_a_tagger() -> None:
    assert [sight.tags for sight in tiny_eyes().see([picture("red")])] == [""]
    (sight,) = tiny_eyes(tags=2).see([picture("red")])
    assert sight.tags.split()[0] in TinyVision.classes


def test_visual_tokens_land_between_the_embedded_parts_of_the_prompt() -> None:
    model = tiny_model(lora=False)
    batch, features = colour_batch(model, {"red": "r", "blue": "a longer one"})
    embeds = model.arrange(batch, features).embeds
    visual_tokens = model.connector(features)
    for row in range(2):
        assert torch.allclose(embeds[row][batch.visual_mask[row]], visual_tokens[row])
        elsewhere = ~batch.visual_mask[row]
        assert torch.equal(embeds[row][elsewhere], model.language.embed(batch.input_ids[row][elsewhere]))
    assert (batch.labels[batch.visual_mask] == -100).all()


def test_what_is_learned_is_what_is_served() -> None:
    """The embeddings of a training batch are those of the prompt that the engine gets, and so are the scores."""
    model = tiny_model()
    shake_lora(model)
    batch, features = colour_batch(model, {"blue": "b"})
    prompt = prompt_about(model, "blue")
    length = sum(map(len, prompt))
    with torch.no_grad():
        embeds = model.arrange(batch, features).embeds[:, :length]
        scores = model.language.model(inputs_embeds=embeds).logits[0, -1]
        assert torch.allclose(embedded(model, prompt), embeds)
    engine = TorchEngine(model.language, "CPU", 512, 1024)
    assert next(engine.stream(prompt, True, Sampling(1))) == int(scores.argmax())


def test_each_stage_trains_exactly_its_parts() -> None:
    model = tiny_model(tags=2)
    connector = {f"eyes.connector.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    lora = {name for name, _ in model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    assert len(lora) == 2 * 2 * 7  # A and B, in two layers, of seven linear layers each
    for stage, expected in {"projector": connector, "projector+lora": connector | lora}.items():
        parts = model.train_only(stage)
        assert {name for name, each in model.named_parameters() if each.requires_grad} == expected
        assert sum(map(len, parts.values())) == len(expected)
    with pytest.raises(UserError, match="no training stage 'everything'. Valid: projector, projector.lora"):
        model.train_only("everything")


def test_a_step_changes_what_trains_and_leaves_the_rest_identical() -> None:
    model = tiny_model()
    shake_lora(model)
    parts = model.train_only("projector+lora")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    batch, features = colour_batch(model, {"red": "r", "blue": "b"})
    optimizer = torch.optim.SGD([p for parameters in parts.values() for p in parameters], lr=0.1)
    model(**batch._asdict(), patch_features=features)["loss"].backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_the_loss_is_that_of_the_answers_alone() -> None:
    model = tiny_model(lora=False)
    batch, features = colour_batch(model, {"red": "yes", "blue": "no"})
    loss = model(**batch._asdict(), patch_features=features)["loss"]
    reference = model.language.model(
        inputs_embeds=model.arrange(batch, features).embeds,
        attention_mask=batch.attention_mask,
        labels=batch.labels,
    ).loss
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)


def test_steps_that_share_a_batch_add_up_to_its_mean() -> None:
    model = tiny_model()
    answers = {"red": "yes", "blue": "a longer answer"}
    batch, features = colour_batch(model, answers)
    whole = model(**batch._asdict(), patch_features=features)["loss"]
    learned = (batch.labels[:, 1:] != -100).sum()
    shares = 0.0
    for colour, answer in answers.items():
        part, own = colour_batch(model, {colour: answer})
        shares += model(**part._asdict(), patch_features=own, num_items_in_batch=learned)["loss"].item()
    assert shares == pytest.approx(whole.item(), rel=1e-5)


def test_with_the_adapter_off_the_model_is_the_base_model() -> None:
    adapted, base = tiny_model(), tiny_model(lora=False)
    shake_lora(adapted)
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        expected = base.language.model(ids).logits
        with adapted.language.lora(False):
            assert torch.equal(adapted.language.model(ids).logits, expected)
        with adapted.language.lora(True):
            assert not torch.allclose(adapted.language.model(ids).logits, expected)


@pytest.mark.parametrize("adapter", [True, False])
def test_cached_and_uncached_generation_agree(adapter: bool) -> None:
    model = tiny_model()
    shake_lora(model)
    prompt = prompt_about(model, "lime")
    ends = end_ids(model.language.tokenizer)
    new: list[int] = []
    with (
        torch.inference_mode(),
        model.language.lora(adapter),
    ):  # the whole sequence again for every token: no cache
        embeds = embedded(model, prompt)
        while len(new) < 12 and (not new or new[-1] not in ends):
            token = model.language.model(inputs_embeds=embeds).logits[0, -1].argmax()
            new.append(int(token))
            embeds = torch.cat([embeds, model.language.embed(token.view(1, 1))], dim=1)
    expected = model.language.tokenizer.decode(new, skip_special_tokens=True)
    assert greedy_text(model, prompt, adapter) == expected


def test_the_size_of_text_is_the_root_mean_square_of_its_embeddings() -> None:
    model = tiny_model(lora=False)
    weight = model.language.model.get_input_embeddings().weight
    assert text_size(model.language) == pytest.approx(float(weight.detach().pow(2).mean().sqrt()), rel=1e-5)


def test_a_share_of_the_lora_is_the_share_of_what_it_adds_and_is_stored_with_it(tmp_path: Path) -> None:
    model = tiny_model()
    shake_lora(model)
    layer = next(each for each in model.language.model.modules() if isinstance(each, LoraLayer))
    inputs = torch.randn(1, 3, layer.in_features)
    with torch.no_grad():
        base, whole = layer.base_layer(inputs), layer(inputs)
        assert model.language.apply_share(0.75) == 6
        assert torch.allclose(layer(inputs) - base, 0.75 * (whole - base), atol=1e-5)
        config = replace(tiny_config(), lora=replace(tiny_config().lora, alpha=6))
        save_adapter(model, tmp_path / "adapter", config, {}, torch.float32)
        served = tiny_model(lora=False)
        load_adapter(served, tmp_path / "adapter")
        batch, features = colour_batch(model, {"red": "Yes."})
        ours, theirs = (
            each.eval()(**batch._asdict(), patch_features=features)["loss"] for each in (model, served)
        )
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_four_pictures_can_be_learned_by_heart() -> None:
    model = tiny_model()
    assert overfit(model, ANSWERS) < 0.1
    assert [greedy_text(model, prompt_about(model, colour)) for colour in ANSWERS] == list(ANSWERS.values())
