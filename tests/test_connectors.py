"""Connectors: each makes as many visual tokens as it says, of any pictures, and refuses what it does not fit."""

import pytest
import torch

from vlm.config import ModelConfig
from vlm.config_reader import PartConfig, from_dict, to_dict
from vlm.errors import UserError
from vlm.model.connectors import CONNECTORS, build_connector, connector_settings, token_count
from vlm.model.connectors.connector import NO_WORD
from vlm.model.connectors.grid import merge_cells, pool_cells
from vlm.model.standardise import channel_statistics

COUNT, SIZE, EMBEDDING = 16, 8, 32


def features() -> torch.Tensor:
    """[20, COUNT, SIZE], far from zero, the last channel without variation."""
    drawn = 100 + 3 * torch.randn(20, COUNT, SIZE, generator=torch.Generator().manual_seed(0))
    drawn[..., -1] = 7.0
    return drawn


@pytest.mark.parametrize("kind", ["mlp", "norm-mlp"])
def test_every_feature_becomes_a_visual_token(kind: str) -> None:
    connector = build_connector(PartConfig(kind, {"hidden": 16}), SIZE, EMBEDDING)
    assert connector(features()).shape == (20, COUNT, EMBEDDING)
    assert [type(layer).__name__ for layer in connector.layers] == ["Linear", "GELU", "Linear"]


def test_training_features_are_standardised_and_what_hardly_varies_is_not_blown_up() -> None:
    connector = build_connector(PartConfig("mlp", {"hidden": 16}), SIZE, EMBEDDING)
    connector.standardise(features())
    mean, deviation = channel_statistics(connector.normalise(features()))
    assert mean.abs().max() < 1e-3
    assert torch.allclose(deviation[:-1], torch.ones(SIZE - 1), atol=1e-3)
    assert connector.normalise.deviation[-1] > 0.1  # type: ignore[operator, index]


@pytest.mark.parametrize("rows", [1, 2])
def test_training_features_that_do_not_vary_are_moved_to_zero_and_not_scaled(rows: int) -> None:
    """As of one picture, of which the encoder gives one feature; std would be nan, or 0."""
    connector = build_connector(PartConfig("mlp", {"hidden": 16}), SIZE, EMBEDDING)
    alike = features()[:1, :1].expand(rows, -1, -1)
    connector.standardise(alike)
    assert torch.equal(connector.normalise(alike), torch.zeros(rows, 1, SIZE))
    assert torch.equal(connector.normalise(alike + 1), torch.ones(rows, 1, SIZE))
    connector.scale_to(0.5, features())
    assert connector(features()).square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-4)


def test_a_layer_norm_takes_no_statistics() -> None:
    connector = build_connector(PartConfig("norm-mlp", {"hidden": 16}), SIZE, EMBEDDING)
    before = {name: tensor.clone() for name, tensor in connector.state_dict().items()}
    connector.standardise(features())
    assert all(torch.equal(before[name], tensor) for name, tensor in connector.state_dict().items())


def test_noise_is_added_to_normalised_features_and_only_in_training() -> None:
    connector = build_connector(PartConfig("mlp", {"hidden": 16}), SIZE, EMBEDDING)
    connector.standardise(features())
    plain = connector.eval()(features())
    connector.noise = 0.5
    assert torch.equal(connector(features()), plain)
    connector.layers = torch.nn.Sequential()
    added = connector.train()(features()) - connector.eval()(features())
    assert added.std() == pytest.approx(0.5, rel=0.1) and abs(added.mean()) < 0.05


def test_neighbouring_cells_become_one_visual_token_with_their_channels_side_by_side() -> None:
    cells = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]])
    cells = torch.stack([cells, -cells], dim=-1).flatten(0, 1)[None]  # [1, 16, 2], row by row
    merged = merge_cells(cells, 2)
    assert merged[0].tolist() == [
        [0, 0, 1, -1, 4, -4, 5, -5], [2, -2, 3, -3, 6, -6, 7, -7],
        [8, -8, 9, -9, 12, -12, 13, -13], [10, -10, 11, -11, 14, -14, 15, -15],
    ]  # fmt: skip
    assert merge_cells(cells, 4).shape == (1, 1, 32)
    assert torch.equal(merge_cells(cells, 1), cells)
    two = torch.cat([cells, 100 + cells])
    assert torch.equal(merge_cells(two, 2)[1], merge_cells(100 + cells, 2)[0])


def test_a_merging_connector_makes_as_many_visual_tokens_as_it_says() -> None:
    config = PartConfig("mlp", {"hidden": 16, "merge": 2})
    connector = build_connector(config, SIZE, EMBEDDING)
    connector.standardise(features())
    assert connector(features()).shape == (20, token_count(config, COUNT), EMBEDDING) == (20, 4, EMBEDDING)
    assert connector.layers[0].in_features == 4 * SIZE
    assert token_count(PartConfig("mlp", {"merge": 2}), 100) == 25


@pytest.mark.parametrize(("merge", "count"), [(2, 25), (3, 100), (2, 50), (2, 1)])
def test_a_grid_that_cannot_be_merged_is_refused(merge: int, count: int) -> None:
    with pytest.raises(UserError, match=rf"connector.merge is {merge}, and the encoder's {count} features"):
        token_count(PartConfig("mlp", {"merge": merge}), count)
    assert token_count(PartConfig("mlp", {"merge": 1}), count) == count


@pytest.mark.parametrize("size", [0.02, 1.5])
def test_fresh_visual_tokens_are_made_as_large_as_asked(size: float) -> None:
    connector = build_connector(PartConfig("mlp", {"hidden": 16, "merge": 2}), SIZE, EMBEDDING)
    connector.standardise(features())
    before = connector(features())
    connector.scale_to(size, features().half())
    after = connector(features())
    assert after.square().mean().sqrt().item() == pytest.approx(size, rel=1e-2)
    assert torch.allclose(
        after / after.norm(), before / before.norm(), atol=1e-6
    )  # of other size and nothing else


def test_an_unknown_connector_names_the_valid_ones() -> None:
    with pytest.raises(
        UserError, match="no connector 'perceiver'. Valid: linear, mlp, norm-mlp, attention-pool"
    ):
        build_connector(PartConfig("perceiver"), SIZE, EMBEDDING)


SMALL: dict[str, dict[str, int]] = {
    "linear": {},
    "mlp": {"hidden": 16, "merge": 2},
    "norm-mlp": {"hidden": 16},
    "attention-pool": {"queries": 3, "heads": 2, "hidden": 16},
    "q-former": {"queries": 5, "layers": 3, "width": 16, "heads": 2},
    "resampler": {"latents": 6, "depth": 2, "width": 16, "heads": 2, "head_size": 8, "frames": 2},
    "pixel-shuffle": {"merge": 4},
    "pooled-grid": {"side": 3, "hidden": 16},
}


INSTRUCTED = PartConfig(
    "q-former", SMALL["q-former"] | {"vocabulary": 40, "text_length": 6, "instructions": "a text encoder"}
)


def test_a_q_former_that_reads_questions_looks_for_what_is_asked() -> None:
    torch.manual_seed(0)
    connector = build_connector(INSTRUCTED, SIZE, EMBEDDING)
    assert connector.reads_questions
    asked = torch.tensor([[3, 4, 5, 6], [3, 4, NO_WORD, NO_WORD]])
    visual_tokens = connector(features()[:2], asked)
    assert visual_tokens.shape == (2, token_count(INSTRUCTED, COUNT), EMBEDDING)
    assert torch.allclose(
        connector(features()[1:2], asked[1:, :2]), visual_tokens[1:], atol=1e-5
    )  # padding is not read
    other = connector(features()[1:2], torch.tensor([[3, 5]]))
    assert not torch.allclose(other, visual_tokens[1:], atol=1e-4)


def test_instructions_without_a_vocabulary_are_refused() -> None:
    settings = SMALL["q-former"] | {"instructions": "all-mpnet-base-v2"}
    with pytest.raises(UserError, match="needs connector.vocabulary.*30528 for all-mpnet-base-v2"):
        build_connector(PartConfig("q-former", settings), SIZE, EMBEDDING)


def test_every_connector_is_tried_here() -> None:
    assert SMALL.keys() == CONNECTORS.keys()


@pytest.mark.parametrize("kind", SMALL)
def test_a_connector_makes_as_many_visual_tokens_as_it_says_as_large_as_asked(kind: str) -> None:
    torch.manual_seed(0)
    config = PartConfig(kind, SMALL[kind])
    connector = build_connector(config, SIZE, EMBEDDING)
    connector.standardise(features())
    connector.scale_to(0.3, features())
    visual_tokens = connector(features())
    assert visual_tokens.shape == (20, token_count(config, COUNT), EMBEDDING)
    assert visual_tokens.square().mean().sqrt().item() == pytest.approx(0.3, rel=1e-3)
    assert [connector.widths[0] % SIZE, connector.widths[-1]] == [0, EMBEDDING]
    alone = torch.cat([connector(features()[place : place + 1]) for place in range(20)])
    assert torch.allclose(alone, visual_tokens, atol=1e-4)  # pictures of a batch do not mix


@pytest.mark.parametrize("kind", SMALL)
def test_every_weight_of_a_connector_learns(kind: str) -> None:
    torch.manual_seed(0)
    connector = build_connector(PartConfig(kind, SMALL[kind]), SIZE, EMBEDDING)
    connector.standardise(features())
    (connector(features()) * torch.randn(EMBEDDING)).sum().backward()
    still = [name for name, each in connector.named_parameters() if each.grad is None or not each.grad.any()]
    # a bias of keys shifts all scores of a query alike, and a softmax does not see that
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("kind", SMALL)
def test_a_connectors_settings_survive_a_round_trip_and_unknown_ones_are_refused(kind: str) -> None:
    config = from_dict(ModelConfig, {"connector": {"kind": kind} | SMALL[kind]}, "preset")
    assert from_dict(ModelConfig, to_dict(config), "round trip") == config
    assert to_dict(connector_settings(config.connector)).items() >= SMALL[kind].items()
    with pytest.raises(UserError, match=f"connector {kind} has no key colour. Valid keys: "):
        connector_settings(PartConfig(kind, {"colour": 3}))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("pooled-grid", {"side": 5}, "connector.side is 5, and the encoder's grid is 4 x 4"),
        ("pooled-grid", {"side": 0}, "Choose a side from 1 to 4"),
        ("pixel-shuffle", {"merge": 3}, "connector.merge is 3, and the encoder's 16 features"),
        ("mlp", {"merge": 0}, "connector.merge is 0"),
        ("resampler", {"frames": 3}, "connector.frames must divide the encoder's 16 features, and is 3"),
    ],
)
def test_a_connector_that_does_not_fit_the_encoder_is_refused(
    kind: str, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        token_count(PartConfig(kind, settings), COUNT)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("resampler", {"depth": 0}, "must each be at least 1"),
        ("attention-pool", {"heads": 3}, "connector.heads must divide the encoder's 8 channels"),
        ("q-former", {"width": 10, "heads": 4}, "its heads divide its width"),
        ("mlp", {"hidden": "wide"}, "connector mlp.hidden must be a whole number, and is 'wide'"),
        ("mlp", {"hidden": True}, "must be a whole number, and is True"),
    ],
)
def test_a_connector_that_cannot_be_built_is_refused(
    kind: str, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_connector(PartConfig(kind, settings), SIZE, EMBEDDING)


def test_what_is_no_square_grid_is_not_pooled() -> None:
    with pytest.raises(UserError, match="pooled-grid needs a square grid, and the encoder's 50 features"):
        token_count(PartConfig("pooled-grid"), 50)


def test_a_pooled_grid_keeps_what_is_where() -> None:
    cells = torch.arange(16.0).reshape(1, 16, 1)
    assert pool_cells(cells, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(pool_cells(cells, 4), cells)


def test_a_resampler_tells_frames_apart() -> None:
    torch.manual_seed(0)
    connector = build_connector(PartConfig("resampler", SMALL["resampler"]), SIZE, EMBEDDING)
    connector.standardise(features())
    first, second = features()[:1].chunk(2, dim=1)
    one, other = connector(torch.cat([first, second], 1)), connector(torch.cat([second, first], 1))
    assert not torch.allclose(one, other, atol=1e-3)
