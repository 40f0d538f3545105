"""Fusions: each begins as it should, sees the right picture, learns, is saved, and is served as it was learned."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import IdeficsConfig
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer

from tests.tiny import SYSTEM, colour_batch, overfit, picture, shake_lora, tiny_config, tiny_model
from vlm.config_reader import PartConfig
from vlm.engines import Prompt, Sampling, prompt_keys
from vlm.engines.torch_engine import TorchEngine
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, restore_adapter, save_adapter
from vlm.model.fusion import FUSIONS, fusion_settings
from vlm.model.fusion.beside import by_row, without_marks
from vlm.model.fusion.cross_attention import GatedBlock, may_look
from vlm.model.prompts import VISUAL, Encoded, PromptTurn, collate, encode, end_ids, segments
from vlm.model.vlm import VisionLanguageModel

CROSS = PartConfig("cross-attention", {"every": 2, "heads": 2, "head_size": 8})
ADDED, GATED = PartConfig("fused"), PartConfig("fused", {"mode": "gate"})
ALL = [PartConfig("prefix"), CROSS, ADDED, GATED]
BESIDE = [CROSS, ADDED, GATED]
ANSWERS = {"red": "r", "lime": "g", "blue": "b", "white": "w"}


def name_of(config: PartConfig) -> str:
    return f"{config.kind}{config.settings.get('mode', '')}"


def every(fusions: list[PartConfig]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fusion", fusions, ids=name_of)


def shaken(fusion: PartConfig, lora: bool = True) -> VisionLanguageModel:
    """With an effect of every part."""
    model = tiny_model(lora, fusion=fusion)
    shake_lora(model)
    with torch.no_grad():
        for parameter in [*model.fusion.parameters(), *model.connector.parameters()]:
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


def prompt_about(model: VisionLanguageModel, *colours: str, question: str = "Which?") -> Prompt:
    """A conversation in which each question comes with a picture."""
    sights = model.eyes.see([picture(colour) for colour in colours])
    turns = [PromptTurn(question, "Yes.", ("",)) for _ in colours[1:]] + [PromptTurn(question, "", ("",))]
    ids = encode(model.language.tokenizer, turns, model.eyes.tokens_per_picture, SYSTEM).ids
    return segments(ids, [sight.visual_tokens for sight in sights])


def engine_of(model: VisionLanguageModel) -> TorchEngine:
    return TorchEngine(model.language, "CPU", 512, 1024, model.fusion)


def greedy(engine: TorchEngine, prompt: Prompt, adapter: bool = True, count: int = 12) -> list[int]:
    with closing(engine.stream(prompt, adapter, Sampling(count, repetition_penalty=1.0))) as tokens:  # type: ignore[type-var]
        return [token for token in tokens if token is not None]


def logits(model: VisionLanguageModel) -> torch.Tensor:
    batch, features = colour_batch(model, {"red": "r", "blue": "a longer"})
    with torch.no_grad():
        return model.eval().language.model(inputs_embeds=model.arrange(batch, features).embeds).logits


def test_every_fusion_is_tried_here() -> None:
    assert {config.kind for config in ALL} == FUSIONS.keys()


@every(ALL)
def test_each_stage_trains_exactly_its_parts(fusion: PartConfig) -> None:
    model = tiny_model(fusion=fusion)
    weights = {
        "prefix": set(),
        "cross-attention": {f"fusion.{name}" for name, _ in model.fusion.named_parameters()},
        "fused": set(),
        "fusedgate": {"fusion.gate.weight", "fusion.gate.bias"},
    }[name_of(fusion)]
    connector = {f"eyes.connector.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    lora = {name for name, _ in model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    stages = {"projector": connector | weights, "projector+lora": connector | weights | lora}
    for stage, expected in stages.items():
        parts = model.train_only(stage)
        assert {name for name, each in model.named_parameters() if each.requires_grad} == expected
        assert sum(map(len, parts.values())) == len(expected)
        assert ("fusion" in parts) == bool(weights) == fusion_settings(fusion).has_weights


def test_a_stage_for_a_lora_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no LoRA .lora.rank is 0. for the stage 'projector.lora'"):
        tiny_model(lora=False).train_only("projector+lora")


@every(ALL)
def test_a_step_changes_what_trains_and_leaves_the_rest_identical(fusion: PartConfig) -> None:
    model = shaken(fusion).train()
    parts = model.train_only("projector+lora")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    batch, features = colour_batch(model, {"red": "r", "blue": "b"})
    features = torch.randn_like(
        features
    )  # a picture of one colour has equal cells, and attention nothing to choose
    optimizer = torch.optim.SGD([p for parameters in parts.values() for p in parameters], lr=0.1)
    model(**batch._asdict(), patch_features=features)["loss"].backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@every(ALL)
def test_gradients_are_the_same_with_checkpointing(fusion: PartConfig) -> None:
    model = shaken(fusion).train()
    parts = model.train_only("projector+lora")
    batch, features = colour_batch(model, {"red": "r", "blue": "b"})
    found = []
    for checkpointing in (False, True):
        model.language.prepare_training(checkpointing)
        model.zero_grad()
        model(**batch._asdict(), patch_features=features)["loss"].backward()
        found.append([each.grad.clone() for part in parts.values() for each in part if each.grad is not None])
    assert len(found[0]) == len(found[1]) == sum(map(len, parts.values()))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_fresh_cross_attention_is_the_text_model_bit_for_bit() -> None:
    model = tiny_model(lora=False, fusion=CROSS).eval()
    prompt = prompt_about(model, "red")
    text = [[id for segment in prompt if isinstance(segment, list) for id in segment]]
    batch, features = colour_batch(model, {"red": "r"})
    with torch.no_grad():
        arranged = model.arrange(batch, features)
        fresh = model.language.model(inputs_embeds=arranged.embeds).logits
        assert model.fusion._now is not None
        model.fusion.rest()
        assert torch.equal(fresh, model.language.model(inputs_embeds=arranged.embeds).logits)
    assert greedy(engine_of(model), prompt) == greedy(TorchEngine(model.language, "CPU", 512, 1024), text)


def test_blocks_in_float32_leave_a_bfloat16_model_as_it_is_and_learn() -> None:
    """As training has them: autocast, and only what is trained in float32."""
    model = tiny_model(lora=False, fusion=CROSS)
    model.language.to(torch.bfloat16)
    batch, features = colour_batch(model, {"red": "r", "blue": "b"})
    features = torch.randn_like(features)
    with torch.autocast("cpu", torch.bfloat16):
        arranged = model.arrange(batch, features)
        fresh = model.language.model(inputs_embeds=arranged.embeds).logits
        model.fusion.rest()
        assert torch.equal(fresh, model.language.model(inputs_embeds=arranged.embeds).logits)
        gates = [each for name, each in model.fusion.named_parameters() if name.endswith("_gate")]
        for gate in gates:
            torch.nn.init.constant_(gate, 0.5)
        model.train_only("projector")
        loss = model.train()(**batch._asdict(), patch_features=features)["loss"]
    loss.backward()
    for name, parameter in [*model.fusion.named_parameters(), *model.connector.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@every(BESIDE)
def test_with_the_adapter_off_and_before_a_picture_it_is_the_text_model(fusion: PartConfig) -> None:
    model = shaken(fusion, lora=False)
    prompt = prompt_about(model, "red")
    text = [[id for segment in prompt if isinstance(segment, list) for id in segment]]
    plain = greedy(TorchEngine(model.language, "CPU", 512, 1024), text)
    engine = engine_of(model)
    seen = greedy(engine, prompt)
    assert seen != plain
    assert greedy(engine, prompt, adapter=False) == plain
    assert greedy(engine, text) == plain
    assert greedy(engine, prompt) == seen  # the cache keeps the two apart
    before = prompt[0]
    assert isinstance(before, list)
    batch, features = colour_batch(model, {"red": "r"})
    with torch.no_grad():
        fused = model.language.model(inputs_embeds=model.arrange(batch, features).embeds).logits
        model.fusion.rest()
        alone = model.language.model(torch.tensor([before])).logits
    assert torch.allclose(fused[:, : len(before)], alone, atol=1e-5)


@every(ALL)
def test_what_is_learned_is_what_is_served(fusion: PartConfig) -> None:
    model = shaken(fusion)
    turns = [
        [PromptTurn("Which?", "Yes.", ("",)), PromptTurn("And?", "No.", ("",))],
        [PromptTurn("A?", "B", ("",))],
    ]
    batch = collate([model.encode(each, SYSTEM) for each in turns], model.language.pad_id)
    features = model.eyes.vision.see([picture(colour) for colour in ("red", "blue", "lime")])
    with torch.no_grad():
        arranged = model.arrange(batch, features)
        scores = model.language.model(
            inputs_embeds=arranged.embeds, attention_mask=arranged.attention_mask
        ).logits
    model.fusion.rest()
    ends = arranged.attention_mask.sum(1)
    tokens = [
        sight.visual_tokens for sight in model.eyes.see([picture(each) for each in ("red", "blue", "lime")])
    ]
    for row, own in enumerate((tokens[:2], tokens[2:])):
        prompt = segments(model.encode(turns[row], SYSTEM).ids, own)
        (first,) = greedy(engine_of(model), prompt, count=1)
        assert first == int(scores[row, ends[row] - 1].argmax())


@every(ALL)
def test_cached_and_uncached_generation_agree(fusion: PartConfig) -> None:
    """Follow-ups, another picture before the same words, and branches: each as by an engine that has read nothing yet."""
    model = shaken(fusion)
    engine = engine_of(model)
    prompts = [
        prompt_about(model, "red"),
        prompt_about(model, "blue"),
        prompt_about(model, "red", "blue"),
        prompt_about(model, "red", "white"),
        prompt_about(model, "blue", "white", question="What is it, in one word?"),
        prompt_about(model, "red"),
    ]
    told = []
    for prompt in prompts:
        told.append(greedy(engine, prompt))
        assert told[-1] == greedy(engine_of(model), prompt)
    assert told[0] == told[-1]
    assert len({tuple(each) for each in told}) == len(told) - 1


@every(BESIDE)
def test_text_behind_another_picture_is_not_taken_from_the_cache(fusion: PartConfig) -> None:
    model = tiny_model(fusion=fusion)
    red, blue = (prompt_keys(prompt_about(model, colour), beside=True) for colour in ("red", "blue"))
    first = next(place for place, (one, other) in enumerate(zip(red, blue, strict=True)) if one != other)
    assert len(red) == sum(len(each) for each in prompt_about(model, "red") if isinstance(each, list))
    assert all(isinstance(key, int) for key in red[:first])
    assert all(one != other for one, other in zip(red[first:], blue[first:], strict=True))


def test_the_next_tokens_are_read_as_if_they_had_been_there() -> None:
    """Token by token, and all at once without a cache."""
    for fusion in ALL:
        model = shaken(fusion)
        prompt = prompt_about(model, "red", "blue")
        new = greedy(engine_of(model), prompt, count=6)
        for count in range(1, 6):
            (following,) = greedy(engine_of(model), [*prompt, new[:count]], count=1)
            assert following == new[count], name_of(fusion)


@every([CROSS, GATED])
def test_a_loaded_adapter_gives_identical_logits(fusion: PartConfig, tmp_path: Path) -> None:
    trained = shaken(fusion)
    config = replace(tiny_config(), fusion=fusion)
    save_adapter(trained, tmp_path / "adapter", config, {}, torch.float32)
    served, resumed = tiny_model(lora=False, fusion=fusion), tiny_model(fusion=fusion)
    load_adapter(served, tmp_path / "adapter")
    restore_adapter(resumed, tmp_path / "adapter")
    assert torch.equal(logits(served), logits(trained))
    assert torch.equal(logits(resumed), logits(trained))


def test_marks_go_behind_the_text_and_each_word_knows_its_picture() -> None:
    first = Encoded([5, VISUAL, 6, 7, VISUAL, 8], [-100, -100, 6, -100, -100, 8])
    second = Encoded([9, VISUAL, 4], [-100, -100, 4])
    marked = without_marks(collate([first, second], pad_id=0))
    assert marked.batch.input_ids.tolist() == [[5, 6, 7, 8, 0, 0], [9, 4, 0, 0, 0, 0]]
    assert marked.batch.attention_mask.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]
    assert marked.batch.labels.tolist() == [[-100, 6, -100, 8, -100, -100], [-100, 4, -100, -100, -100, -100]]
    assert marked.seen[0, :4].tolist() == [0, 1, 1, 2] and marked.seen[1, :2].tolist() == [0, 1]


def test_pictures_of_a_batch_go_to_their_rows() -> None:
    marks = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0]]).bool()
    pictures = by_row(torch.arange(1.0, 4).view(3, 1, 1), marks)
    assert pictures.flatten(1).tolist() == [[1, 2], [0, 0], [3, 0]]


def test_a_position_may_look_at_the_last_picture_before_it() -> None:
    mask = may_look(torch.tensor([[0, 1, 2]]), pictures=2, visual_tokens=2)
    assert mask.int().tolist() == [[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]]


def test_a_gated_block_is_that_of_idefics() -> None:
    config = IdeficsConfig(
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        vision_config={"embed_dim": 32},
        dropout=0.0,
    )
    config._attn_implementation = "eager"
    theirs = IdeficsGatedCrossAttentionLayer(config, layer_idx=0).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours = GatedBlock(32, heads=4, head_size=8, feed=48)
    names = {
        "cross_attn.q_proj": "attention.query", "cross_attn.k_proj": "attention.key",
        "cross_attn.v_proj": "attention.value", "cross_attn.o_proj": "attention.output",
        "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
        "input_layernorm": "norm", "post_attention_layernorm": "feed_norm",
    }  # fmt: skip
    gates = {"alpha_cross_attn": "attention_gate", "alpha_dense": "feed_gate"}
    state = {}
    for name, tensor in theirs.state_dict().items():
        module, _, kind = name.rpartition(".")
        if "rotary" not in name:
            state[gates.get(name) or f"{names[module]}.{kind}"] = tensor
    ours.load_state_dict(state)
    states, pictures = torch.randn(2, 5, 32), torch.randn(2, 3 * 4, 32)
    seen = torch.tensor([[1, 1, 2, 2, 3], [1, 2, 2, 3, 3]])
    mask = may_look(seen, pictures=3, visual_tokens=4)
    with torch.no_grad():
        expected = theirs(
            states,
            image_hidden_states=pictures,
            image_attention_mask=torch.zeros(2, 1, 5, 12).masked_fill(~mask[:, None], -1e9),
            cross_attention_gate=torch.ones(2, 5),
        )
        found = ours(states, *ours.attention.remember(pictures), mask, seen > 0)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, states, atol=0.1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PartConfig("concat"), "no fusion 'concat'. Valid: prefix, cross-attention, fused"),
        (PartConfig("prefix", {"every": 2}), "fusion prefix has no key every. Valid keys: none"),
        (
            PartConfig("cross-attention", {"every": 3}),
            "fusion.every must be from 1 to the language model's 2 layers",
        ),
        (PartConfig("cross-attention", {"every": 0}), "fusion.every must be from 1"),
        (PartConfig("fused", {"mode": "concat"}), "no fusion.mode 'concat'. Valid: add, gate"),
    ],
)
def test_a_fusion_that_cannot_be_is_refused(config: PartConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fusion_settings(config).build(32, 2)


@pytest.mark.slow
@every(ALL)
def test_four_pictures_can_be_learned_by_heart(fusion: PartConfig) -> None:
    model = tiny_model(fusion=fusion)
    assert overfit(model, ANSWERS, steps=150) < 0.1
    ends = end_ids(model.language.tokenizer)
    answers = [greedy(engine_of(model), prompt_about(model, colour), count=1)[0] for colour in ANSWERS]
    assert model.language.tokenizer.decode(answers) == "".join(ANSWERS.values())
    assert not set(answers) & set(ends)
