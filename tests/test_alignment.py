"""Pictures and texts in one space: pooling, losses, shorter embeddings, gradient caching, scores, the aligner's folder."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from tests.tiny_alignment import COLOURS, TINY, colours, tiny_aligner, tiny_clip, tiny_text, write_pairs
from training.aligners.contrast import LOSSES, info_nce, matryoshka_loss, shorten, siglip
from training.aligners.gradient_cache import cached_backward
from training.scores import alignment as alignment_scores
from training.scores.projection import principal_axes, t_sne
from training.scores.retrieval import (
    chance,
    found_both_ways,
    mean_average_precision,
    median_rank,
    modality_gap,
    ranks,
    recall_at,
    recall_lost,
    retrieval,
)
from vlm.config import HeadConfig, TextConfig, load_aligner_config
from vlm.errors import UserError
from vlm.model import alignment
from vlm.model.aligner import Aligner
from vlm.model.alignment import find_aligner, load_aligner_model, save_aligner
from vlm.model.encoder import Encoder
from vlm.model.pooling import POOLINGS, build_head, build_pooling
from vlm.model.text_encoders import build_text_encoder
from vlm.model.tiles import Tiled

ONE, NONE = torch.tensor(1.0), torch.tensor(0.0)


def unit(*shape: int) -> Tensor:
    return functional.normalize(torch.randn(*shape), dim=-1)


@pytest.mark.parametrize("kind", POOLINGS)
def test_padding_never_changes_what_is_pooled(kind: str) -> None:
    pooling = build_pooling(HeadConfig(kind, queries=2, heads=2), 8)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    features, mask = torch.randn(3, 5, 8), torch.tensor([[True] * 3 + [False] * 2] * 3)
    padded = pooling(features, mask)
    assert padded.shape == (3, pooling.pooled_size)
    short = pooling(features[:, :3], mask[:, :3])
    assert torch.allclose(padded, short, atol=1e-6)


def test_learned_queries_begin_as_the_mean_and_may_look_at_one_token() -> None:
    pooling = build_pooling(HeadConfig("simple"), 8)
    features, mask = torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    assert torch.allclose(pooling(features, mask), features.mean(1), atol=1e-6)
    with torch.no_grad():
        pooling.queries.copy_(100 * features[0, 2])
    assert torch.allclose(pooling(features, mask), features[:, 2], atol=1e-3)


def test_learned_queries_are_multi_head_attention_without_its_key_projection() -> None:
    pooling = build_pooling(HeadConfig("multihead", queries=3, heads=2), 8)
    torch.nn.init.normal_(pooling.queries)
    features, mask = torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool)
    values = torch.stack(
        [features @ pooling.values[head] for head in range(2)], dim=1
    )  # [B, heads, N, D / heads]
    queries = (
        pooling.queries.unflatten(0, (3, 2)).transpose(0, 1).expand(2, -1, -1, -1)
    )  # [B, heads, queries, D]
    keys = features.unsqueeze(1).expand(-1, 2, -1, -1)
    expected = functional.scaled_dot_product_attention(
        queries, keys, values
    )  # [B, heads, queries, D / heads]
    assert torch.allclose(pooling(features, mask), expected.transpose(1, 2).flatten(1), atol=1e-5)


def test_an_unknown_pooling_and_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="no pooling 'max'. Valid: cls, mean, simple, multihead"):
        build_pooling(HeadConfig("max"), 8)
    with pytest.raises(UserError, match="heads must divide the 8 features; 3"):
        build_pooling(HeadConfig("multihead", heads=3), 8)


def test_the_contrastive_loss_is_the_one_computed_by_hand() -> None:
    pictures, texts = torch.eye(2), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    same, all_there = torch.eye(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    rows = -math.log(math.exp(0.6) / (math.exp(0.6) + 1)), -math.log(math.e / (math.exp(0.8) + math.e))
    columns = -math.log(math.exp(0.6) / (math.exp(0.6) + math.exp(0.8))), -math.log(math.e / (1 + math.e))
    loss = info_nce(pictures, texts, ONE, NONE, same, all_there)
    assert loss.item() == pytest.approx((sum(rows) + sum(columns)) / 4, abs=1e-6)
    expected = -sum(math.log(1 / (1 + math.exp(-z))) for z in (0.6, 1.0, -0.0, -0.8)) / 2
    assert siglip(pictures, texts, ONE, NONE, same, all_there).item() == pytest.approx(expected, abs=1e-6)


def test_a_dropped_text_asks_for_nothing_but_its_picture_stays_a_candidate() -> None:
    pictures, texts = unit(3, 4), unit(3, 4)
    same, kept = torch.eye(3, dtype=torch.bool), torch.tensor([True, True, False])
    loss = info_nce(pictures, texts, ONE, NONE, same, kept)
    scores = pictures @ texts.T
    to_text = functional.cross_entropy(scores[:2, :2], torch.arange(2))
    to_picture = functional.cross_entropy(scores.T[:2], torch.arange(2))  # among all three pictures
    assert loss.item() == pytest.approx(((to_text + to_picture) / 2).item(), abs=1e-6)
    other = torch.cat([texts[:2], unit(1, 4)])
    for each in LOSSES.values():
        dropped = (each(pictures, some, ONE, NONE, same, kept) for some in (texts, other))
        assert torch.allclose(*dropped)


def test_what_is_the_same_is_no_wrong_answer() -> None:
    pictures = texts = torch.eye(3)[[0, 0, 1]]
    alike = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    all_there, scale = torch.ones(3, dtype=torch.bool), torch.tensor(50.0)
    strict = info_nce(pictures, texts, scale, NONE, torch.eye(3, dtype=torch.bool), all_there)
    assert strict.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-5)
    told = siglip(pictures, texts, scale, torch.tensor(-25.0), alike, all_there)
    assert told.item() == pytest.approx(0, abs=1e-5)
    assert siglip(pictures, texts, scale, torch.tensor(-25.0), torch.eye(3, dtype=torch.bool), all_there) > 10


def test_shorter_embeddings_are_the_first_numbers_of_unit_length_again() -> None:
    whole = unit(4, 8)
    short = shorten(whole, 2)
    assert torch.allclose(short.norm(dim=-1), torch.ones(4))
    assert torch.allclose(short * whole[:, :2].norm(dim=-1, keepdim=True), whole[:, :2])


def test_the_matryoshka_loss_weighs_the_whole_by_a_quarter_and_the_mean_of_the_shorter_by_one() -> None:
    pictures, texts = unit(4, 8), unit(4, 8)
    rest = (ONE, NONE, torch.eye(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool))
    loss = matryoshka_loss("infonce", pictures, texts, *rest, dims=(4, 2))
    parts = [info_nce(shorten(pictures, dim), shorten(texts, dim), *rest) for dim in (8, 4, 2)]
    assert loss.clip.item() == pytest.approx(parts[0].item(), abs=1e-6)
    assert loss.total.item() == pytest.approx((0.25 * parts[0] + (parts[1] + parts[2]) / 2).item(), abs=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradient_caching_gives_the_gradients_of_the_whole_batch_and_the_same_random_numbers(
    kind: str,
) -> None:
    embedded = []

    def gradients(piece: int) -> dict[str, Tensor]:
        torch.manual_seed(1)
        aligner = tiny_aligner()
        aligner.train_only("heads")
        torch.manual_seed(2)
        pictures, texts = torch.randn(6, 4, 8), torch.randn(6, 3, 8)
        mask = torch.ones(6, 3, dtype=torch.bool)
        rest = (torch.eye(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool))
        pieces = list(zip(pictures.split(piece), texts.split(piece), mask.split(piece), strict=True))

        def loss_of(p: Tensor, t: Tensor):  # type: ignore[no-untyped-def]
            return matryoshka_loss(kind, p, t, aligner.current_scale(), aligner.bias, *rest, dims=(4,))

        aligner.register_forward_hook(lambda *_: embedded.append(piece))
        cached_backward(aligner, pieces, loss_of, [aligner.log_scale, aligner.bias], Tensor.backward)
        return {name: each.grad for name, each in aligner.named_parameters() if each.grad is not None}

    whole, cached = gradients(6), gradients(2)
    assert whole.keys() == cached.keys() and {"log_scale", "bias"} <= whole.keys()
    assert embedded == [6, *[2] * 6]  # one piece is embedded once, others twice
    for name, gradient in whole.items():
        # sums in another order, rounded as far as their largest parts are
        assert torch.allclose(gradient, cached[name], atol=1e-6 * max(1.0, float(gradient.abs().max()))), name


def test_the_stages_train_exactly_their_parts_and_the_frozen_stay_as_they_are() -> None:
    aligner = tiny_aligner()
    aligner.vision.half()  # as CLIP is on a GPU
    for stage, frozen in (("heads", ("vision.", "text.")), ("full", ())):
        aligner.train_only(stage)
        trained = {name for name, each in aligner.named_parameters() if each.requires_grad}
        assert trained == {name for name, _ in aligner.named_parameters() if not name.startswith(frozen)}, (
            stage
        )
    assert {each.dtype for each in aligner.parameters()} == {torch.float32}  # of what trains
    with pytest.raises(UserError, match="no training stage 'vision'. Valid: heads, full"):
        aligner.train_only("vision")


@pytest.mark.parametrize(
    ("vision", "unused"),
    [
        (tiny_clip("pooled", -2), 0),
        (tiny_clip("patches", -1), 3),  # the norm behind the layers, and the projection
        (tiny_clip("grid", -2), 19),  # and the last layer
        (Tiled(tiny_clip("grid", -2), 2), 19),
    ],
)
def test_in_the_full_stage_every_trainable_weight_has_a_gradient(vision: Encoder, unused: int) -> None:
    """Several processes wait for those of all."""
    config = replace(TINY, class_texts=())
    heads = build_head(config.picture_head, vision.feature_size, 8), build_head(config.text_head, 8, 8)
    aligner = Aligner(config, vision, tiny_text(pooler=True), *heads)
    before = torch.get_rng_state()
    parts = aligner.train_only("full")
    assert torch.equal(torch.get_rng_state(), before)
    pixels = torch.stack([aligner.vision.preprocess(image) for image in colours()])
    seen = aligner(pixels, *aligner.text.tokenize(COLOURS))
    ((seen.pictures @ seen.texts.T).sum() * aligner.current_scale() + aligner.bias).backward()
    trained = {name: each for name, each in aligner.named_parameters() if each.requires_grad}
    assert not [name for name, each in trained.items() if each.grad is None]
    assert len(list(aligner.parameters())) - len(trained) == unused + 2  # of the text's pooler
    assert {id(each) for own in parts.values() for each in own} == {id(each) for each in trained.values()}


def test_in_the_full_stage_gradients_reach_both_encoders_from_pixels_and_token_ids() -> None:
    aligner = tiny_aligner()
    aligner.train_only("full")
    pixels = torch.stack([aligner.vision.preprocess(image) for image in colours()])
    seen = aligner(pixels, *aligner.text.tokenize(COLOURS))
    (seen.pictures @ seen.texts.T).sum().backward()
    assert aligner.vision.convolution.weight.grad.abs().sum() > 0
    assert aligner.text.network.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_embeddings_are_of_unit_length_at_every_size_and_do_not_depend_on_the_batch() -> None:
    aligner = tiny_aligner().eval()
    for dim in (None, 8, 4, 3):
        for found in (aligner.embed_pictures(colours(), dim), aligner.embed_texts(COLOURS, dim)):
            assert found.shape == (8, dim or 8) and found.dtype == torch.float32
            assert torch.allclose(found.norm(dim=-1), torch.ones(8), atol=1e-6)
    alone = torch.cat([aligner.embed_texts([text]) for text in COLOURS])
    assert torch.allclose(alone, aligner.embed_texts(COLOURS), atol=1e-5)  # padding is not read
    assert torch.allclose(
        aligner.embed_pictures(colours()[:1]), aligner.embed_pictures(colours())[:1], atol=1e-6
    )
    assert aligner.embed_pictures([]).shape == (0, 8) and aligner.embed_texts([], 4).shape == (0, 4)


def test_a_class_is_the_mean_direction_of_its_texts() -> None:
    aligner = tiny_aligner()
    aligner.read_class_texts()
    aligner.eval()
    assert aligner.class_guess is not None
    classes = dict(zip(aligner.vision.classes, aligner.class_guess.classes, strict=True))
    texts = aligner.embed_texts(["a bee", "bee: it stings"])
    assert torch.allclose(classes["bee"], functional.normalize(texts.mean(0), dim=0), atol=1e-5)
    assert not torch.allclose(classes["bee"], classes["cat"], atol=1e-2)


def test_the_shipped_preset_gives_each_class_of_the_picture_encoder_three_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alignment, "build_text_encoder", lambda *_: tiny_text())
    aligner = alignment.build_aligner(load_aligner_config("embedded"))
    assert aligner.class_guess is not None and len(aligner.class_guess.classes) == 1000
    assert len(aligner.class_texts) == 3 * 1000
    read: list[str] = []
    aligner.read_class_texts(lambda text: (read.append(text), torch.zeros(1, 8))[1])
    assert sorted(read) == sorted(aligner.class_texts)
    goldfish = aligner.vision.classes.index("goldfish")
    assert aligner.class_texts[3 * goldfish : 3 * goldfish + 2] == ["goldfish", "a photo of a goldfish."]


def test_classes_are_where_the_aligner_is_and_features_come_to_the_classifier() -> None:
    known = tiny_aligner().text.read(["a bee"]).features[0]
    moved = tiny_aligner().to("meta")
    moved.read_class_texts(lambda text: known)
    assert moved.class_tokens is not None
    assert {each.device.type for each in moved.class_tokens} == {"meta"}
    aligner = tiny_aligner()
    aligner.vision.classifier.double()
    chances = alignment_scores.classified(aligner, torch.randn(2, 4, 8), ["bee", "none"])
    assert chances.shape == (2, 2) and chances.dtype == torch.float32 and (chances[:, 0] > 0).all()


def test_an_encoders_class_counts_for_a_name_that_is_a_whole_word_of_it() -> None:
    aligner = tiny_aligner()
    aligner.vision.classes = ("cardigan", "sports car", *aligner.vision.classes[2:])
    scores = aligner.vision.classifier(torch.zeros(1, 8)).softmax(-1)
    (chance,) = alignment_scores.classified(aligner, torch.zeros(1, 4, 8), ["car"])
    assert chance.item() == pytest.approx(scores[0, 1].item())


def test_class_texts_with_other_braces_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"may have \{name\} and \{meaning\} in braces; 'a \{size\}' has others"
    ):
        alignment.build_aligner(replace(TINY, class_texts=("a {size}",)))


def test_a_size_that_the_aligner_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="has 8 dimensions, and 9 were asked for"):
        tiny_aligner().embed_texts(["red"], 9)


def test_a_text_of_ten_thousand_characters_is_cut_off() -> None:
    text = tiny_text(max_length=16)
    assert text.read(["a" * 10_000]).features.shape == (1, 16, 8)
    assert torch.equal(text.read(["a" * 10_000]).features, text.read(["a" * 16]).features)


def test_the_temperature_stays_within_its_bounds() -> None:
    aligner = tiny_aligner()
    with torch.no_grad():
        aligner.log_scale.fill_(9.0)
    assert aligner.current_scale().item() == pytest.approx(100, rel=1e-5) and aligner.scale <= 100


def test_a_saved_aligner_gives_the_same_embeddings_and_identity(tmp_path: Path, tiny_parts: None) -> None:
    aligner = tiny_aligner().eval()
    with torch.no_grad():
        for parameter in aligner.picture_head.parameters():
            parameter.add_(torch.randn_like(parameter)).copy_(parameter.half())
        for parameter in aligner.text_head.parameters():
            parameter.copy_(parameter.half())
        aligner.log_scale.copy_(aligner.log_scale.half())
    save_aligner(aligner, tmp_path / "mine", {"epochs": 1}, {"score": 1.0})
    loaded = load_aligner_model(str(tmp_path / "mine"))
    assert torch.equal(loaded.embed_pictures(colours()), aligner.embed_pictures(colours()))
    assert torch.equal(loaded.embed_texts(COLOURS), aligner.embed_texts(COLOURS))
    assert loaded.identity == aligner.identity != tiny_aligner().identity
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text()) == {"score": 1.0}
    assert not any(
        name.startswith(("vision", "text.")) for name in load_file(tmp_path / "mine" / "heads.safetensors")
    )


def test_encoders_that_were_trained_are_saved_with_the_heads(tmp_path: Path, tiny_parts: None) -> None:
    aligner = tiny_aligner()
    aligner.train_only("full")
    with torch.no_grad():
        aligner.vision.convolution.weight.fill_(0.25)
    save_aligner(aligner, tmp_path / "mine", {}, {}, torch.float32)
    loaded = load_aligner_model(str(tmp_path / "mine"))
    assert torch.equal(loaded.vision.convolution.weight, aligner.vision.convolution.weight)
    assert loaded.identity == aligner.identity


def test_another_config_is_another_identity() -> None:
    assert tiny_aligner().identity != tiny_aligner(replace(TINY, name="other")).identity


def test_a_folder_without_an_aligner_and_a_damaged_one_say_what_to_do(
    tmp_path: Path, tiny_parts: None
) -> None:
    with pytest.raises(UserError, match=r"no config.yaml and no heads.safetensors.*training\.align"):
        find_aligner(str(tmp_path))
    save_aligner(tiny_aligner(), tmp_path / "mine", {}, {})
    save_file({"log_scale": torch.tensor(0.0)}, tmp_path / "mine" / "heads.safetensors")
    with pytest.raises(
        UserError, match="damaged or incomplete.*has no bias, class_guess.*Copy or train it again"
    ):
        load_aligner_model(str(tmp_path / "mine"))


@pytest.mark.parametrize("damage", ["NaN", "foreign", "other shape"])
def test_an_aligner_with_wrong_weights_is_refused(tmp_path: Path, tiny_parts: None, damage: str) -> None:
    save_aligner(tiny_aligner(), tmp_path / "mine", {}, {})
    file = tmp_path / "mine" / "heads.safetensors"
    tensors = load_file(file)
    wrong = {"NaN": {"bias": torch.tensor(torch.nan)}, "foreign": {"more": torch.zeros(2)}}
    save_file(tensors | wrong.get(damage, {"bias": torch.zeros(2)}), file)
    with pytest.raises(UserError, match="damaged or incomplete.*again"):
        load_aligner_model(str(tmp_path / "mine"))


@pytest.mark.parametrize("content", ["", "- a", "aligner: 3", "aligner: {dims: 5}", "\udcff"])
def test_an_aligner_with_an_odd_config_is_refused(tmp_path: Path, tiny_parts: None, content: str) -> None:
    save_aligner(tiny_aligner(), tmp_path / "mine", {}, {})
    (tmp_path / "mine" / "config.yaml").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"config\.yaml") as told:
        load_aligner_model(str(tmp_path / "mine"))
    assert "\n" not in str(told.value)
    (tmp_path / "mine" / "weights.PKL").touch()
    with pytest.raises(UserError, match=r"weights\.PKL: pickles"):
        find_aligner(str(tmp_path / "mine"))


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built for any config are the tiny parts."""
    monkeypatch.setattr(alignment, "build_aligner", tiny_aligner)


@pytest.mark.parametrize("name", ["embedded", "pixmo"])
def test_an_aligner_preset_parses_and_its_heads_can_be_built(name: str) -> None:
    config = load_aligner_config(name)
    assert config.name == name and list(config.dims) == sorted(config.dims, reverse=True)
    build_head(config.text_head, 384, config.dims[0])
    with pytest.raises(UserError, match="no aligner 'none'. Shipped presets: embedded, pixmo"):
        load_aligner_config("none")


def test_an_unknown_text_encoder_is_refused() -> None:
    with pytest.raises(UserError, match="no text encoder 'glove'. Valid: sentence, clip"):
        build_text_encoder(TextConfig(encoder="glove"))


@pytest.mark.slow
def test_mpnet_from_its_wheels_knows_what_means_the_same() -> None:
    features, mask = build_text_encoder(TextConfig()).read(
        ["A dog runs on the beach.", "A puppy is running along the shore.", "The stock market fell."]
    )
    pooled = functional.normalize((features * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True), dim=-1)
    likeness = pooled @ pooled.T
    assert likeness[0, 1] > 0.6 > 0.2 > likeness[0, 2]


def test_ranks_recall_and_median_are_those_counted_by_hand() -> None:
    similarities = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.2, 0.2, 0.1]])
    right = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    found = ranks(similarities, right)
    assert found.tolist() == [1, 2, 3]
    assert [recall_at(found, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert median_rank(found) == 2 and median_rank(torch.tensor([1, 2])) == 1.5
    equal = torch.ones(1, 4)
    assert ranks(equal, torch.tensor([[False, True, False, False]])).tolist() == [
        4
    ]  # all alike is no success


def test_average_precision_is_the_one_counted_by_hand() -> None:
    similarities = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]])
    right = torch.tensor([[True, False, True, False], [True, False, False, False], [False] * 4])
    expected = ((1 + 2 / 3) / 2 + 1 / 4) / 2  # the third asks for what is not there
    assert mean_average_precision(similarities, right) == pytest.approx(expected)


def test_a_picture_is_found_by_any_of_its_texts() -> None:
    pictures = torch.eye(3)
    texts = functional.normalize(torch.tensor([[1.0, 0, 0], [0.1, 1, 0], [0, 1.0, 0], [0, 0.9, 0.1]]), dim=-1)
    scores = retrieval(pictures, texts, owners=[0, 0, 1, 2])
    assert scores["t2i_recall@1"] == 0.5 and scores["i2t_recall@1"] == 1.0
    assert scores["t2i_recall@5"] == 1.0 and scores["t2i_median_rank"] == 1.5


def test_ranks_in_blocks_are_those_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pictures, texts, owners = unit(7, 4), unit(20, 4), [place % 7 for place in range(20)]
    right = torch.tensor(owners)[:, None] == torch.arange(7)
    whole = found_both_ways(texts @ pictures.T, right)
    assert retrieval(pictures, texts, owners) == whole
    for at_once in (1, 21, 50):  # rows of one, of one and three, of two and seven
        monkeypatch.setattr("training.scores.retrieval.AT_ONCE", at_once)
        assert retrieval(pictures, texts, owners) == whole


def test_what_cutting_loses_is_paired_and_has_an_interval() -> None:
    """Of eight texts the whole vectors find all pictures at 1, the cut ones all but those of the last picture."""
    owners = [place // 2 for place in range(8)]
    whole = functional.one_hot(torch.tensor(owners), 12).float()
    cut = whole.clone()
    cut[6:] = 0.5 * whole[6:] + whole[6:].roll(1, dims=1)
    lost = recall_lost(whole, cut, owners)
    assert lost["t2i_recall@1"]["value"] == 0.25 and lost["t2i_recall@1"]["low"] == 0.0
    assert 0.5 <= (lost["t2i_recall@1"]["high"] or 0) <= 1.0  # of four drawn, two or three are the last
    assert lost["t2i_recall@5"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert recall_lost(cut, whole, owners)["t2i_recall@1"]["value"] == -0.25


def test_chance_is_what_random_embeddings_reach() -> None:
    expected = chance(10, 2)
    found = [retrieval(unit(10, 4), unit(20, 4), [place // 2 for place in range(20)]) for _ in range(300)]
    for name in ("t2i_recall@1", "i2t_recall@1", "i2t_recall@5"):
        assert sum(each[name] for each in found) / 300 == pytest.approx(expected[name], abs=0.03), name


def test_the_scores_command_measures_what_the_data_has(
    tmp_path: Path, tiny_parts: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alignment_scores, "build_aligner", tiny_aligner)
    save_aligner(tiny_aligner(), tmp_path / "mine", {}, {})
    (tmp_path / "data").mkdir()
    write_pairs(tmp_path / "data", alignment_scores.CAPTIONED)
    command = ["scores", "--aligner", str(tmp_path / "mine"), "--data", str(tmp_path / "data")]
    monkeypatch.setattr("sys.argv", command)
    alignment_scores.main()
    found = json.loads(capsys.readouterr().out)["flickr8k_search"]
    assert (found["pictures"], found["texts"]) == (8, 16) and list(found["by_dim"]) == ["8", "4", "2"]
    assert found["chance"]["t2i_recall@1"] == 1 / 8
    monkeypatch.setattr("sys.argv", [*command[:2], str(tmp_path), *command[3:]])
    with pytest.raises(SystemExit, match="alignment: .* is not an aligner"):
        alignment_scores.main()


def test_the_modality_gap_is_the_distance_of_the_centroids() -> None:
    assert modality_gap(torch.tensor([[0.0, 0], [2, 0]]), torch.tensor([[1.0, 3], [1, 5]])) == 4.0


def test_two_clusters_stay_apart_in_the_plane() -> None:
    clusters = torch.cat([torch.randn(20, 16) + 6, torch.randn(20, 16) - 6])
    for flat in (principal_axes(clusters), t_sne(clusters)):
        nearest = torch.cdist(flat, flat).fill_diagonal_(math.inf).argmin(1)
        assert (nearest[:20] < 20).all() and (nearest[20:] >= 20).all()
