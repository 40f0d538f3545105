"""Parts against Transformers' own modules: the same weights in, the same numbers out."""

import re
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    CLIPVisionConfig,
    IdeficsConfig,
    InstructBlipQFormerConfig,
    InstructBlipQFormerModel,
    LlamaConfig,
    LlavaConfig,
)
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from vlm.config_reader import PartConfig
from vlm.model.connectors import build_connector
from vlm.model.connectors.connector import NO_WORD
from vlm.model.connectors.mlp import MlpProjector
from vlm.model.connectors.pixel_shuffle import PixelShuffle
from vlm.model.connectors.q_former import QFormer, QFormerSettings, without_text
from vlm.model.connectors.resampler import Perceiver

NAMES_OF_QFORMER = {
    r"^layernorm\.": "norm.",
    r"^embeddings\.layernorm\.": "norm.",
    r"^embeddings\.word_embeddings": "text.words",
    r"^embeddings\.position_embeddings": "text.places",
    r"^encoder\.layer\.": "blocks.",
    r"crossattention\.attention\.": "cross.",
    r"crossattention\.output\.dense": "cross.output",
    r"crossattention\.output\.LayerNorm": "cross_norm",
    r"attention\.attention\.": "attention.",
    r"attention\.output\.dense": "attention.output",
    r"attention\.output\.LayerNorm": "norm",
    r"intermediate_query\.dense": "query_feed.layers.0",
    r"output_query\.dense": "query_feed.layers.2",
    r"output_query\.LayerNorm": "query_feed.norm",
    r"intermediate\.dense": "text_feed.layers.0",
    r"(?<=\d\.)output\.dense": "text_feed.layers.2",
    r"(?<=\d\.)output\.LayerNorm": "text_feed.norm",
}
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
PLAIN = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "encoder_hidden_size": 24}


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Theirs -> ours."""
    result = {}
    for name, tensor in state.items():
        for pattern, ours in names.items():
            name = re.sub(pattern, ours, name)
        result[name] = tensor
    return result


def shaken(module: nn.Module) -> nn.Module:
    """Every weight as no fresh one is, norms and biases among them, so that none is left out unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def load_all(module: nn.Module, state: dict[str, Tensor], but: set[str]) -> None:
    """Every weight of the module from `state` and nothing over, but for what begins as `but` says."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == but


def q_former(theirs: nn.Module, vocabulary: int = 0) -> QFormer:
    settings = QFormerSettings(queries=5, layers=4, width=32, heads=4, vocabulary=vocabulary, text_length=12)
    ours = settings.build(feature_size=24, embedding_size=16).eval()
    but = {"queries", "normalise", "outward"}
    load_all(ours, renamed(theirs.state_dict(), NAMES_OF_QFORMER), but)
    return ours


def test_the_q_former_is_that_of_blip_2() -> None:
    theirs = shaken(Blip2QFormerModel(Blip2QFormerConfig(**SIZES, **PLAIN, use_qformer_text_input=False)))
    ours = q_former(theirs)
    features = torch.randn(3, 9, 24)
    with torch.no_grad():
        queries = ours.queries.expand(3, -1, -1)
        expected = theirs(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        assert torch.allclose(ours.read(features), expected, atol=1e-5)
        assert torch.allclose(ours(features), ours.outward(expected), atol=1e-5)


def instructed() -> tuple[InstructBlipQFormerModel, QFormer]:
    config = InstructBlipQFormerConfig(**SIZES, **PLAIN, vocab_size=40, max_position_embeddings=12)
    theirs = shaken(InstructBlipQFormerModel(config))
    assert isinstance(theirs, InstructBlipQFormerModel)
    return theirs, q_former(theirs, vocabulary=40)


def test_text_beside_the_queries_is_read_as_by_instruct_blip() -> None:
    theirs, ours = instructed()
    features, ids = torch.randn(2, 9, 24), torch.randint(1, 40, (2, 7))
    padded = torch.ones(2, 12, dtype=torch.long)
    padded[1, -3:] = 0
    with torch.no_grad():
        queries = ours.queries.expand(2, -1, -1)
        expected = theirs(ids, query_embeds=queries, attention_mask=padded, encoder_hidden_states=features)
        states = ours.read(features, ids, padded.bool().unsqueeze(1).expand(-1, 12, -1))
        padding = torch.arange(7) >= 4
        tokens = ours(features, torch.where(padding & torch.tensor([[False], [True]]), NO_WORD, ids))
    assert torch.allclose(tokens, ours.outward(expected.last_hidden_state[:, :5]), atol=1e-5)
    assert torch.allclose(states[0], expected.last_hidden_state[0], atol=1e-5)
    assert torch.allclose(states[1, :-3], expected.last_hidden_state[1, :-3], atol=1e-5)


def test_a_mask_from_outside_parts_queries_and_text() -> None:
    """BLIP-2's contrast: neither sees the other, so that each is what it is alone. Its captions: text sees the queries and
    the text before it, and the queries see no text."""
    _, ours = instructed()
    features, ids = torch.randn(2, 9, 24), torch.randint(1, 40, (2, 7))
    is_text = torch.arange(12) >= 5
    apart = (is_text[:, None] == is_text[None]).expand(2, -1, -1)
    causal = (is_text[:, None] | ~is_text[None]) & (~is_text[None] | torch.ones(12, 12).tril().bool())
    with torch.no_grad():
        both = ours.read(features, ids, apart)
        assert torch.allclose(both[:, :5], ours.read(features), atol=1e-5)
        assert torch.allclose(both[:, 5:], ours.read(None, ids), atol=1e-5)
        written = ours.read(features, ids, causal.expand(2, -1, -1))
        assert torch.allclose(written[:, :5], ours.read(features), atol=1e-5)
        changed = ids.clone()
        changed[:, 4] = 39 - changed[:, 4]
        rewritten = ours.read(features, changed, causal.expand(2, -1, -1))
        assert torch.allclose(rewritten[:, :9], written[:, :9], atol=1e-5)
        assert not torch.allclose(rewritten[:, 9:], written[:, 9:], atol=1e-2)
        assert not torch.allclose(ours.read(features, ids)[:, :5], written[:, :5], atol=1e-2)


def test_after_the_first_stage_the_pictures_side_stands_alone() -> None:
    _, first = instructed()
    second = QFormerSettings(queries=5, layers=4, width=32, heads=4).build(24, 16).eval()
    second.load_state_dict(without_text(first.state_dict()))
    features = torch.randn(2, 9, 24)
    assert torch.equal(second(features), first(features))


def test_the_resampler_is_that_of_idefics() -> None:
    config = IdeficsConfig(vision_config={"embed_dim": 24})
    theirs = shaken(
        IdeficsPerceiverResampler(config, embed_dim=24, depth=3, n_heads=2, head_dim=8, n_latents=5)
    )
    ours = Perceiver(24, 3, 2, 8, 5)
    names = {
        "layer_norm": "norm",
        r"blocks\.(\d)\.0\.context_norm": r"blocks.\1.feature_norm",
        r"blocks\.(\d)\.0\.latents_norm": r"blocks.\1.latent_norm",
        r"blocks\.(\d)\.0\.(q|k|v|output)_proj": r"blocks.\1.attention.\2",
        r"attention\.q\.": "attention.query.",
        r"attention\.k\.": "attention.key.",
        r"attention\.v\.": "attention.value.",
        r"blocks\.(\d)\.1\.ln": r"blocks.\1.feed.0",
        r"blocks\.(\d)\.1\.fc": r"blocks.\1.feed.1",
        r"blocks\.(\d)\.1\.c_proj": r"blocks.\1.feed.3",
    }
    load_all(ours, renamed(theirs.state_dict(), names), set())
    features = torch.randn(3, 9, 24)
    with torch.no_grad():
        assert torch.allclose(ours(features), theirs(features), atol=1e-5)


def test_the_two_layers_are_those_of_llava() -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=24), text_config=LlamaConfig(hidden_size=32)
    )
    theirs = shaken(LlavaMultiModalProjector(config))
    ours = MlpProjector(nn.Identity(), 24, 32, 32)
    load_all(ours.layers, renamed(theirs.state_dict(), {"linear_1": "0", "linear_2": "2"}), set())
    features = torch.randn(3, 9, 24)
    with torch.no_grad():
        assert torch.equal(ours(features), theirs(features))


def test_neighbours_are_put_side_by_side_as_by_idefics3() -> None:
    vision, text = SimpleNamespace(hidden_size=24), SimpleNamespace(hidden_size=32)
    theirs = Idefics3Connector(SimpleNamespace(scale_factor=2, vision_config=vision, text_config=text))
    ours = build_connector(PartConfig("pixel-shuffle", {"merge": 2}), 24, 32)
    assert isinstance(ours, PixelShuffle)
    (weight,) = theirs.parameters()
    features = torch.randn(3, 16, 24)
    with torch.no_grad():
        ours.layer.weight.copy_(weight)
        ours.layer.bias.zero_()
        assert torch.allclose(ours(features), theirs(features), atol=1e-6)
