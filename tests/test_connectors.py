"""Connectors: two layers behind a normalisation, and places for visual tokens where the preset asks for them."""

import pytest
import torch

from vlm.config import ConnectorConfig
from vlm.errors import UserError
from vlm.model.connectors import build_connector, channel_statistics

COUNT, SIZE, EMBEDDING = 5, 8, 32


def features() -> torch.Tensor:
    """[20, COUNT, SIZE], far from zero, the last channel without variation."""
    drawn = 100 + 3 * torch.randn(20, COUNT, SIZE, generator=torch.Generator().manual_seed(0))
    drawn[..., -1] = 7.0
    return drawn


@pytest.mark.parametrize("kind", ["mlp", "norm-mlp"])
def test_every_feature_becomes_a_visual_token(kind: str) -> None:
    connector = build_connector(ConnectorConfig(kind, hidden=16), COUNT, SIZE, EMBEDDING)
    assert connector(features()).shape == (20, COUNT, EMBEDDING)
    assert [type(layer).__name__ for layer in connector.layers[1:]] == ["Linear", "GELU", "Linear"]


def test_training_features_are_standardised_and_what_hardly_varies_is_not_blown_up() -> None:
    connector = build_connector(ConnectorConfig(hidden=16), COUNT, SIZE, EMBEDDING)
    connector.standardise(features())
    mean, deviation = channel_statistics(connector.layers[0](features()))
    assert mean.abs().max() < 1e-3
    assert torch.allclose(deviation[:-1], torch.ones(SIZE - 1), atol=1e-3)
    assert connector.layers[0].deviation[-1] > 0.1  # type: ignore[operator, index, union-attr]


def test_a_layer_norm_takes_no_statistics() -> None:
    connector = build_connector(ConnectorConfig("norm-mlp", hidden=16), COUNT, SIZE, EMBEDDING)
    before = {name: tensor.clone() for name, tensor in connector.state_dict().items()}
    connector.standardise(features())
    assert all(torch.equal(before[name], tensor) for name, tensor in connector.state_dict().items())


def test_noise_is_added_to_normalised_features_and_only_in_training() -> None:
    connector = build_connector(ConnectorConfig(hidden=16), COUNT, SIZE, EMBEDDING)
    connector.standardise(features())
    plain = connector.eval()(features())
    connector.noise = 0.5
    assert torch.equal(connector(features()), plain)
    connector.layers = connector.layers[:1]
    added = connector.train()(features()) - connector.eval()(features())
    assert added.std() == pytest.approx(0.5, rel=0.1) and abs(added.mean()) < 0.05


def test_positions_tell_like_features_apart_and_start_from_nothing() -> None:
    connector = build_connector(ConnectorConfig(hidden=16, positions=True), COUNT, SIZE, EMBEDDING)
    same = features()[:1, :1].expand(1, COUNT, SIZE)
    assert torch.equal(connector(same), connector.layers(same))
    assert connector.positions is not None
    torch.nn.init.normal_(connector.positions)
    assert torch.allclose(connector(same)[0] - connector.layers(same)[0], connector.positions, atol=1e-5)
    without = build_connector(ConnectorConfig(hidden=16), COUNT, SIZE, EMBEDDING)
    assert without.positions is None and "positions" not in without.state_dict()


def test_an_unknown_connector_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match="no connector 'perceiver'. Valid: mlp, norm-mlp"):
        build_connector(ConnectorConfig("perceiver"), COUNT, SIZE, EMBEDDING)
