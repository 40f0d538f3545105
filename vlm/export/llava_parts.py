"""What a model has in common with LLaVA: CLIP's vision tower and two linear layers. Else which part is in the way."""

from dataclasses import dataclass, replace
from typing import NoReturn

from torch import Tensor, nn
from transformers import CLIPVisionModel

from vlm.errors import UserError
from vlm.model.connectors.mlp import MlpProjector
from vlm.model.eyes import Eyes
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class LlavaParts:
    """`norm` stands between the tower and the first layer; None where nothing does. Weights [out, in], biases [out]."""

    tower: CLIPVisionModel
    layer: int  # of the tower, from the end
    class_token: bool  # whether its feature is one of the visual tokens
    norm: nn.LayerNorm | None
    weights: tuple[Tensor, Tensor]
    biases: tuple[Tensor, Tensor]


def llava_parts(eyes: Eyes) -> LlavaParts:
    """Raises UserError that names the part which LLaVA has otherwise."""
    from vlm.model.vision_transformer import Clip

    vision, connector = eyes.vision, eyes.connector
    if not isinstance(vision, Clip):
        in_the_way(f"the vision encoder, {type(vision).__name__}: these formats know CLIP alone")
    if vision.features == "pooled":
        in_the_way('vision.features, which is "pooled": these formats take a layer\'s patches ("grid")')
    if eyes.tagger:
        in_the_way("the tagger, whose names stand in the prompt. Set vision.tags to 0 and train again")
    if not isinstance(connector, MlpProjector) or connector.merge != 1:
        in_the_way(
            "the connector: these formats have two linear layers with a GELU between, and merge no cells"
        )
    network = vision.network
    norm = connector.normalise
    first, _, second = connector.layers
    weights, biases = (first.weight, second.weight), (first.bias, second.bias)
    if isinstance(norm, Standardise):  # fixed statistics are part of the first layer
        scaled = first.weight / norm.deviation
        weights, biases = (scaled, second.weight), (first.bias - scaled @ norm.mean, second.bias)
    return LlavaParts(
        tower=network if isinstance(network, CLIPVisionModel) else network.vision_model,
        layer=vision.layer,
        class_token=vision.features == "patches",
        norm=norm if isinstance(norm, nn.LayerNorm) else None,
        weights=(weights[0].detach(), weights[1].detach()),
        biases=(biases[0].detach(), biases[1].detach()),
    )


def in_the_way(part: str) -> NoReturn:
    raise UserError(f"This adapter cannot be written so. In the way is {part}.")


def widened(parts: LlavaParts, size: int) -> LlavaParts:
    """The same with `size` channels between the layers: those that are added are zero, before and after the GELU."""
    missing = size - len(parts.biases[0])
    if missing < 0:
        in_the_way(
            f"the connector, whose hidden size of {len(parts.biases[0])} is above the language model's {size}"
        )
    pad = nn.functional.pad
    return replace(
        parts,
        weights=(pad(parts.weights[0], (0, 0, 0, missing)), pad(parts.weights[1], (0, missing))),
        biases=(pad(parts.biases[0], (0, missing)), parts.biases[1]),
    )
