"""The preset phi-3.5 without the hub: its exact size, and its whole way with a tiny Phi-3 and a tiny CLIP in 4 bits."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from torch import nn
from transformers import CLIPModel

import vlm.model.sizes
from tests.conftest import EXAMPLES
from tests.tiny import SYSTEM, colour_batch, picture, shake_lora
from tests.tiny_phi import phi_tokenizer, save_clip, save_preset, tiny_phi_config
from training import finetune
from training.adapters.trainer import AdapterTrainer
from training.config import SourceConfig, StageConfig, TrainingConfig, load_training_config
from training.runs.adapter_run import training_record
from vlm import load_assistant
from vlm.config import ModelConfig, load_model_config
from vlm.engines import Sampling
from vlm.engines.torch_engine import TorchEngine
from vlm.errors import UserError
from vlm.model.adapter_folder import read_description
from vlm.model.encoders import build_encoder
from vlm.model.prompts import IGNORE, VISUAL, PromptTurn, encode, end_ids, segments
from vlm.model.sizes import describe
from vlm.model.vision_transformer import clip_dtype, load_clip
from vlm.model.vlm import VisionLanguageModel, build_model

COLOURS = {"red": "r", "lime": "g", "blue": "b", "white": "w"}
OTHER_COLOURS = {"black": "b", "yellow": "y", "gray": "g", "orange": "o"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return tiny_phi_config(tmp_path_factory.mktemp("tiny-phi"))


@pytest.fixture
def model(config: ModelConfig) -> VisionLanguageModel:
    built = build_model(config, "cpu")
    built.language.add_lora(config.lora)
    return built


def batch_of(model: VisionLanguageModel) -> dict[str, torch.Tensor]:
    batch, patch_features = colour_batch(model, COLOURS)
    return batch._asdict() | {
        "patch_features": patch_features.clone()
    }  # what is seen is seen in inference mode


def test_the_preset_has_the_parameters_of_the_originals_training_log() -> None:
    sizes = describe(load_model_config("phi-3.5"))
    assert (sizes.trainable, sizes.total) == (111_680_512, 3_932_760_064)
    assert sizes.encoder == "1 x 512"
    assert sizes.projector == "512 -> 3072 -> 3072"


def test_patches_of_the_real_clip_are_50_of_768() -> None:
    config = load_model_config("phi-3.5")
    assert describe(replace(config, vision=replace(config.vision, features="patches"))).encoder == "50 x 768"


def as_text(ids: list[int]) -> str:
    tokenizer = phi_tokenizer()
    return "".join("@" if id == VISUAL else tokenizer.decode([id]) for id in ids)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ((), "<|user|>\nWhat?<|end|>\n<|assistant|>\n"),
        (("",), "<|user|>\n@@\nWhat?<|end|>\n<|assistant|>\n"),
        (("", "", ""), "<|user|>\n@@\n@@\n@@\nWhat?<|end|>\n<|assistant|>\n"),
    ],
)
def test_phis_template_splits_where_the_pictures_stand(pictures: tuple[str, ...], expected: str) -> None:
    turns = [PromptTurn("What?", "", pictures)]
    assert as_text(encode(phi_tokenizer(), turns, 2).ids) == expected
    system = "<|system|>\nLook.<|end|>\n"
    assert as_text(encode(phi_tokenizer(), turns, 2, "Look.").ids) == system + expected


def test_answers_and_end_are_learned_and_the_text_after_them_is_not() -> None:
    encoded = encode(phi_tokenizer(), [PromptTurn("A?", "Yes.", ("",)), PromptTurn("B?", "No.")], 2)
    assert as_text([label for label in encoded.labels if label != IGNORE]) == "Yes.<|end|>No.<|end|>"
    assert as_text(encoded.ids).endswith("No.<|end|>\n<|endoftext|>")


def test_a_turn_ends_with_end_and_padding_does_not(model: VisionLanguageModel) -> None:
    """The checkpoint's own settings name the end of the text only; the template says more."""
    end, end_of_text = phi_tokenizer().convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    assert {end, end_of_text} <= set(end_ids(model.language.tokenizer))
    assert model.language.pad_id not in (end, end_of_text)


def test_clip_gives_what_get_image_features_gives_and_any_layer(tmp_path: Path) -> None:
    save_clip(tmp_path)
    whole = CLIPModel.from_pretrained(tmp_path).eval()
    pooled = load_clip(tmp_path, "pooled", -2)
    images = [picture("red"), picture("blue").resize((40, 20))]
    pixels = torch.stack([pooled.preprocess(image) for image in images])
    assert pixels.shape == (2, 3, 32, 32)
    with torch.no_grad():
        expected = whole.visual_projection(whole.vision_model(pixels).pooler_output)
        layers = whole.vision_model(pixels, output_hidden_states=True).hidden_states
    assert torch.allclose(pooled.see(images), expected.unsqueeze(1), atol=1e-6)
    assert pooled.see(images).shape == (2, pooled.feature_count, pooled.feature_size) == (2, 1, 16)
    for layer in (-1, -2):
        patches = load_clip(tmp_path, "patches", layer)
        seen = patches.see(images)
        assert torch.allclose(seen, layers[layer], atol=1e-6)
        assert seen.shape == (2, patches.feature_count, patches.feature_size) == (2, 5, 32)
    with pytest.raises(UserError, match="between -3 and -1"):
        load_clip(tmp_path, "patches", -9)
    grid = load_clip(tmp_path, "grid", -2)
    assert torch.allclose(grid.see(images), layers[-2][:, 1:], atol=1e-6) and grid.feature_count == 4
    with pytest.raises(UserError, match="pooled, patches, grid"):
        load_clip(tmp_path, "cells", -1)


def test_clip_in_half_precision_as_a_gpu_has_it_sees_the_same(tmp_path: Path) -> None:
    save_clip(tmp_path)
    assert (clip_dtype("cuda:0"), clip_dtype("cpu")) == (torch.float16, torch.float32)
    clip, images = load_clip(tmp_path, "patches", -2), [picture("red")]
    whole = clip.see(images)
    half = clip.half().see(images)
    assert half.dtype is torch.float16
    assert (half - whole).norm() < 0.01 * whole.norm()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "left"),
    [
        ("phi/model.safetensors", 0.5),
        ("phi/model.safetensors", None),
        ("phi/config.json", 0.5),
        ("phi/tokenizer.json", 0.5),
        ("clip/model.safetensors", 0.5),
        ("clip/config.json", 0.0),
    ],
)
def test_damaged_weights_are_one_sentence_with_the_remedy(
    file: str, left: float | None, tmp_path: Path
) -> None:
    preset = save_preset(tiny_phi_config(tmp_path), tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if left is not None:
        (tmp_path / file).write_bytes(content[: int(left * len(content))])
    folder = str((tmp_path / file).parent)
    with pytest.raises(UserError, match="could not be loaded.*missing or damaged.*again") as told:
        build_model(load_model_config(preset), "cpu")
    if file.startswith("phi"):  # what an assistant without an adapter loads: it sees nothing
        with pytest.raises(UserError, match="could not be loaded.*missing or damaged.*again"):
            load_assistant(preset)
    assert folder in str(told.value) and "\n" not in str(told.value)


def test_clip_has_no_tags(config: ModelConfig) -> None:
    with pytest.raises(UserError, match=r"vision\.tags to 0"):
        build_encoder(replace(config.vision, tags=3))


def test_the_decoder_is_in_four_bits_and_the_rest_is_not(model: VisionLanguageModel) -> None:
    model.language.prepare_training(gradient_checkpointing=True)
    model.train_only("projector+lora")
    for name, parameter in model.named_parameters():
        if "base_layer" in name:
            assert type(parameter).__name__ == "Params4bit", name
            assert parameter.quant_state.quant_type == "nf4" and parameter.quant_state.nested, name
        elif "norm" in name or "lora_" in name or name.startswith("eyes."):
            assert parameter.dtype is torch.float32, name
        else:
            assert parameter.dtype is torch.bfloat16, name
    linear = [m for name, m in model.named_modules() if name.endswith("base_layer")]
    assert len(linear) == 2 * 4
    assert {layer.compute_dtype for layer in linear} == {torch.bfloat16}
    assert model.language.precision == "4-bit NF4, bfloat16"


def test_norms_are_float32_and_what_follows_them_is_not(config: ModelConfig) -> None:
    model = build_model(config, "cpu")
    model.language.add_lora(config.lora)
    model.language.prepare_training(gradient_checkpointing=False)
    norms = [p for name, p in model.language.named_parameters() if "norm" in name]
    seen = set()

    def see(linear: nn.Module, arguments: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.add((arguments[0].dtype, output.dtype))

    for name, module in model.language.named_modules():
        if name.endswith("base_layer"):
            module.register_forward_hook(see)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch_of(model))
    assert {norm.dtype for norm in norms} == {torch.float32}
    assert seen == {(torch.bfloat16, torch.bfloat16)}


def test_with_the_adapter_off_the_quantised_model_is_the_base_model(
    config: ModelConfig, model: VisionLanguageModel
) -> None:
    base = build_model(config, "cpu").language.model
    shake_lora(model)
    ids = torch.tensor([[6, 20, 30, 5]])
    with torch.no_grad():
        expected = base(ids).logits
        with model.language.lora(False):
            assert torch.equal(model.language.model(ids).logits, expected)
        assert not torch.allclose(model.language.model(ids).logits, expected)


def test_a_run_tells_the_preset_by_its_name() -> None:
    config = load_training_config("phi-3.5")
    assert training_record(config, load_model_config(config.model).name)["model"] == "phi-3.5"


def test_gradient_checkpointing_gives_the_same_gradients(config: ModelConfig) -> None:
    config = replace(config, lora=replace(config.lora, dropout=0.0))
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_model(config, "cpu")
        model.language.add_lora(config.lora)
        shake_lora(model)
        model.language.prepare_training(checkpointing)
        model.train_only("projector+lora")
        model.train()
        batch = batch_of(model)
        with torch.autocast("cpu", torch.bfloat16):
            model(**batch)["loss"].backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))
    text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    model.zero_grad()
    model(**text, visual_mask=torch.zeros_like(batch["visual_mask"]))["loss"].backward()  # no picture at all
    assert all(p.grad is not None for p in model.language.lora_parameters())


@pytest.mark.slow
def test_four_pictures_can_be_learned_by_heart_and_answers_stop_at_end(config: ModelConfig) -> None:
    config = replace(config, lora=replace(config.lora, dropout=0.0))
    model = build_model(config, "cpu")
    model.language.add_lora(replace(config.lora, alpha=8))
    model.language.prepare_training(gradient_checkpointing=False)
    trained = [p for parameters in model.train_only("projector+lora").values() for p in parameters]
    batch, optimizer = batch_of(model), torch.optim.Adam(trained, lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    assert loss.item() < 0.1
    model.eval()
    engine, tokenizer = TorchEngine(model.language, "CPU", 256, 512), model.language.tokenizer
    ends = end_ids(tokenizer)
    sights = model.eyes.see([picture(name) for name in COLOURS])
    ids = encode(tokenizer, [PromptTurn("Which?", "", ("",))], model.eyes.tokens_per_picture, SYSTEM).ids
    for sight, answer in zip(sights, COLOURS.values(), strict=True):
        sampling = Sampling(12, repetition_penalty=1.0, end_ids=ends)
        *said, last = engine.stream(segments(ids, [sight.visual_tokens]), True, sampling)
        assert tokenizer.decode(said) == answer
        assert tokenizer.decode([last]) == "<|end|>"


def training_on(folder: Path, preset: str) -> TrainingConfig:
    """Four pictures with a question each, four more to validate, and two short stages as the training preset has them."""
    (folder / "data").mkdir(exist_ok=True)
    rows = []
    for split, colours in (("train", COLOURS), ("validation", OTHER_COLOURS)):
        for name, answer in colours.items():
            content = io.BytesIO()
            picture(name).save(content, "PNG")
            image = {"bytes": content.getvalue(), "path": f"{name}.png"}
            rows.append(
                {"image": image, "question": "Which?", "answer": answer, "source": "tiny", "split": split}
            )
    parquet.write_table(pa.Table.from_pylist(rows), folder / "data" / "tiny.parquet")
    return TrainingConfig(
        model=preset,
        data=str(folder / "data"),
        output=str(folder / "run"),
        sources=(SourceConfig("tiny"),),
        projector_stage=StageConfig("projector", epochs=2),
        joint_stage=StageConfig(epochs=8, max_steps=10),
        style="keywords",
        batch_size=2,
        gradient_checkpointing=True,
        warmup_steps=2,
        logging_steps=1,
        save_steps=4,
    )


@pytest.mark.slow
def test_the_whole_way_both_stages_killed_resumed_and_served(
    config: ModelConfig, tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = save_preset(config, tmp_path)
    training = training_on(tmp_path, preset)
    step = AdapterTrainer.training_step

    def step_or_not(self: AdapterTrainer, *arguments: Any) -> torch.Tensor:
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AdapterTrainer, "training_step", step_or_not)
        finetune.run(training)
    assert {path.name for path in Path(training.output).iterdir()} >= {"projector", "joint"}
    resumed = finetune.run(training)
    told = read_description(resumed)["training"]
    assert told["model"] == "tiny-phi" and str(tmp_path) not in str(told)

    monkeypatch.setattr(
        vlm.model.sizes, "memory", lambda device: (5e8, 5e8)
    )  # too little for 16 bits twice over
    assistant = load_assistant(preset, str(resumed))
    assert "4-bit NF4" in assistant.description
    seen = assistant.answer("Which?", images=[picture("red")])
    assert (seen.stage, seen.route, seen.adapter) == ("done", "image", "run")
    assert seen.tokens > 0
    typed = assistant.answer("Which?")
    assert (typed.route, typed.adapter) == ("text", None)
    base = load_assistant(preset)
    assert (base.adapter, base.answer("Which?").text) == (None, typed.text)
    spoken = assistant.answer(audio=sorted(EXAMPLES.glob("*.wav"))[0])
    assert spoken.transcript and spoken.stage == "done"
