"""The preset pixmo in its whole structure, 4096 numbers and all, with tiny random encoders: it trains, saves, searches."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, MPNetConfig, MPNetModel

from tests.tiny import picture, tiny_tokenizer
from tests.tiny_alignment import COLOURS, write_pairs
from training import align
from training.config import AlignmentConfig, PairSource, load_alignment_config
from vlm import load_aligner
from vlm.config import AlignerConfig, TextConfig, load_aligner_config
from vlm.config_reader import to_dict
from vlm.model.alignment import build_aligner, save_aligner
from vlm.model.text_encoders import ClipText, build_text_encoder

HALF = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as the hub has them: clip, with both halves and its tokenizer, and mpnet, a sentence encoder."""
    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("weights"), tiny_tokenizer()
    vision = HALF | {"image_size": 32, "patch_size": 16, "projection_dim": 16}
    text = HALF | {"vocab_size": len(tokenizer), "projection_dim": 16, "bos_token_id": 1, "eos_token_id": 2}
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    sentences = MPNetModel(MPNetConfig(vocab_size=len(tokenizer), max_position_embeddings=66, **HALF))
    for name, model, longest in (("clip", clip, 77), ("mpnet", sentences, 64)):
        tokenizer.model_max_length = longest
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def tiny_pixmo(weights: Path, encoder: str) -> AlignerConfig:
    """The preset with tiny encoders, and 16 in place of 4096 where nobody sees it."""
    config = load_aligner_config("pixmo")
    text = TextConfig(encoder, str(weights / {"clip": "clip", "sentence": "mpnet"}[encoder]))
    return replace(
        config,
        vision=replace(config.vision, weights=str(weights / "clip")),
        text=text,
        picture_head=replace(config.picture_head, hidden=16),
        text_head=replace(config.text_head, hidden=16),
    )


def training_of(config: AlignerConfig, folder: Path) -> AlignmentConfig:
    """The training preset, on eight colours: a few steps of four pairs."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(to_dict(config)), encoding="utf-8")
    (folder / "data").mkdir()
    preset = load_alignment_config(
        "pixmo",
        aligner=str(folder / "tiny.yaml"),
        data=str(write_pairs(folder / "data")),
        output=str(folder / "run"),
    )
    return replace(preset, sources=(PairSource("tiny"),), batch_size=4, chunk_size=2, epochs=4)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "stage"), [("clip", "heads"), ("sentence", "heads"), ("clip", "full")])
def test_the_preset_trains_saves_loads_and_searches(
    weights: Path, tmp_path: Path, encoder: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(align, "draw_all", lambda *_: None)  # which takes longer than all else
    config = tiny_pixmo(weights, encoder)
    save_aligner(build_aligner(config), tmp_path / "fresh", {}, {})
    folder = align.run(replace(training_of(config, tmp_path), stage=stage))
    before, after = (load_file(each / "heads.safetensors") for each in (tmp_path / "fresh", folder))
    assert not torch.equal(before["text_head.layers.2.weight"], after["text_head.layers.2.weight"])
    assert any(name.startswith("text.network.") for name in after) == (stage == "full")
    for name in COLOURS:
        picture(name).save(tmp_path / f"{name}.png")
    searcher = load_aligner(str(folder), "cpu")
    assert searcher.aligner.dims == (4096, 2048, 1024, 512, 256, 128)
    index = searcher.index([tmp_path / f"{name}.png" for name in COLOURS])
    assert index.vectors.shape == (8, 4096)
    found = searcher.search("red", tmp_path / "red.png", index=index, count=8)
    assert found[0].score > found[-1].score and {Path(each.path).stem for each in found} == set(COLOURS)
    (own, *_) = searcher.search(picture=tmp_path / "red.png", index=index)
    assert Path(own.path).stem == "red" and own.score == pytest.approx(1.0, abs=1e-4)


def test_clips_text_half_puts_its_summary_first_whatever_stands_behind_it(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("transformers").addHandler(caplog.handler)
    encoder = build_text_encoder(TextConfig("clip", str(weights / "clip")))
    assert isinstance(encoder, ClipText) and encoder.max_length == 77
    texts = ["a red dog", "sun"]
    features, mask = encoder.read(texts)
    stored = load_file(weights / "clip" / "model.safetensors")
    for name, value in encoder.network.state_dict().items():
        assert torch.equal(value, stored[f"text_model.{name.removeprefix('text_model.')}"]), name
    for place, text in enumerate(texts):
        ids, own = encoder.tokenize([text])
        hidden = encoder.network(input_ids=ids, attention_mask=own.long()).last_hidden_state[0]
        assert torch.allclose(
            features[place, 0], hidden[-1], atol=1e-5
        )  # the last of the text, not of the batch
        assert torch.allclose(features[place, 1 : len(hidden)], hidden[:-1], atol=1e-5)
        assert mask[place].sum() == len(hidden)
    assert "UNEXPECTED" not in caplog.text  # the picture half in the file is no reason to warn


def test_a_text_is_cut_to_what_the_encoder_has_positions_for(weights: Path) -> None:
    for name, kind in (("clip", "clip"), ("mpnet", "sentence")):
        encoder = build_text_encoder(TextConfig(kind, str(weights / name), max_length=512))
        assert encoder.read(["x" * 10_000]).features.isfinite().all()
