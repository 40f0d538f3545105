"""Connectors: two layers behind a normalisation, and neighbouring cells that become one visual token."""

import pytest
import torch

from vlm.config import ConnectorConfig
from vlm.errors import UserError
from vlm.model.connectors import build_connector, channel_statistics, merge_cells, token_count

COUNT, SIZE, EMBEDDING = 16, 8, 32


def features() -> torch.Tensor:
    """[20, COUNT, SIZE], far from zero, the last channel without variation."""
    drawn = 100 + 3 * torch.randn(20, COUNT, SIZE, generator=torch.Generator().manual_seed(0))
    drawn[..., -1] = 7.0
    return drawn


@pytest.mark.parametrize("kind", ["mlp", "norm-mlp"])
def test_every_feature_becomes_a_visual_token(kind: str) -> None:
    connector = build_connector(ConnectorConfig(kind, hidden=16), SIZE, EMBEDDING)
    assert connector(features()).shape == (20, COUNT, EMBEDDING)
    assert [type(layer).__name__ for layer in connector.layers] == ["Linear", "GELU", "Linear"]


def test_training_features_are_standardised_and_what_hardly_varies_is_not_blown_up() -> None:
    connector = build_connector(ConnectorConfig(hidden=16), SIZE, EMBEDDING)
    connector.standardise(features())
    mean, deviation = channel_statistics(connector.normalise(features()))
    assert mean.abs().max() < 1e-3
    assert torch.allclose(deviation[:-1], torch.ones(SIZE - 1), atol=1e-3)
    assert connector.normalise.deviation[-1] > 0.1  # type: ignore[operator, index]


def test_a_layer_norm_takes_no_statistics() -> None:
    connector = build_connector(ConnectorConfig("norm-mlp", hidden=16), SIZE, EMBEDDING)
    before = {name: tensor.clone() for name, tensor in connector.state_dict().items()}
    connector.standardise(features())
    assert all(torch.equal(before[name], tensor) for name, tensor in connector.state_dict().items())


def test_noise_is_added_to_normalised_features_and_only_in_training() -> None:
    connector = build_connector(ConnectorConfig(hidden=16), SIZE, EMBEDDING)
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
    config = ConnectorConfig(hidden=16, merge=2)
    connector = build_connector(config, SIZE, EMBEDDING)
    connector.standardise(features())
    assert connector(features()).shape == (20, token_count(config, COUNT), EMBEDDING) == (20, 4, EMBEDDING)
    assert connector.layers[0].in_features == 4 * SIZE
    assert token_count(ConnectorConfig(merge=2), 100) == 25


@pytest.mark.parametrize(("merge", "count"), [(2, 25), (3, 100), (2, 50), (2, 1)])
def test_a_grid_that_cannot_be_merged_is_refused(merge: int, count: int) -> None:
    with pytest.raises(UserError, match=rf"connector.merge is {merge}, and the encoder's {count} features"):
        token_count(ConnectorConfig(merge=merge), count)
    assert token_count(ConnectorConfig(merge=1), count) == count


@pytest.mark.parametrize("size", [0.02, 1.5])
def test_fresh_visual_tokens_are_made_as_large_as_asked(size: float) -> None:
    connector = build_connector(ConnectorConfig(hidden=16, merge=2), SIZE, EMBEDDING)
    connector.standardise(features())
    before = connector(features())
    connector.scale_to(size, features().half())
    after = connector(features())
    assert after.square().mean().sqrt().item() == pytest.approx(size, rel=1e-2)
    assert torch.allclose(
        after / after.norm(), before / before.norm(), atol=1e-6
    )  # of other size and nothing else


def test_an_unknown_connector_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match="no connector 'perceiver'. Valid: mlp, norm-mlp"):
        build_connector(ConnectorConfig("perceiver"), SIZE, EMBEDDING)
