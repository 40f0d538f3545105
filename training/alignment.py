"""Features, the tagger and the language model's words -> a projector that speaks these words from the start.

Before anything is learned from questions, each visual token is drawn to the embeddings of what the tagger's classifiers
see in its cell. They are linear, so that what they see in a cell is its share of what they see in the whole (class
activation maps, arXiv:1512.04150). Unusual: no language model runs. The projector is fitted to the classifiers as to a
function, on noisy and mixed features (arXiv:2106.05237); thousands of steps take minutes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data import Row
from training.features import FeatureStore
from training.tags import fit
from vlm.errors import UserError
from vlm.model.colours import NAMED_COLOURS
from vlm.model.connectors import channel_statistics
from vlm.model.tagger import SIDES
from vlm.model.vlm import VisionLanguageModel

BATCH, LEARNING_RATE = 512, 2e-3
PICTURES = 4096  # whose features are looked at
NOISE = 1.0  # in deviations of each channel: without it the projector learns the training pictures by heart
COLOUR_SHARE = 0.3  # of what a visual token says, beside the names
SHARPNESS = 25.0  # of the softmax over cosines: a token may be all of one word


def align(
    model: VisionLanguageModel, rows: Sequence[Row], store: FeatureStore, steps: int, seed: int
) -> None:
    """Fit the connector's layers to the tagger, and start its positions from the words for where a cell is."""
    tagger, connector = model.tagger, model.connector
    if tagger is None:
        raise UserError("alignment_steps needs a model with tags: set them to 0, or vision.tags above 0.")
    generator = torch.Generator().manual_seed(seed)
    features = store.sample(sorted({row.picture for row in rows}), PICTURES)  # [M, N, Dv]
    _, deviation = channel_statistics(features)
    colours = sorted(NAMED_COLOURS)
    centre, words = embed_words(model, [*tagger.names, *colours])
    colour_head = fit_colours(rows, store, colours, tagger.classifier.in_features, seed).to(words.device)
    length = words.norm(dim=-1).mean()
    directions = functional.normalize(words, dim=-1)
    optimizer = torch.optim.AdamW(connector.layers.parameters(), LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        first, second = (draw(features, generator) for _ in range(2))
        share = torch.rand(BATCH, 1, generator=generator)
        share[: BATCH // 2] = 1.0
        noise = NOISE * deviation * torch.randn(first.shape, generator=generator)
        mixed = (share * first + (1 - share) * second + noise).to(words.device)
        names = tagger(mixed).clone()  # outside of inference mode
        with torch.no_grad():
            seen = colour_head(mixed[:, tagger.classifier.in_features :]).softmax(-1)
        target = torch.cat([(1 - COLOUR_SHARE) * names, COLOUR_SHARE * seen], dim=-1)
        spoken = connector.layers(mixed) - centre  # [B, Dl]
        scores = SHARPNESS * functional.normalize(spoken, dim=-1) @ directions.T
        too_long = (spoken.norm(dim=-1) / length - 1).square().mean()
        loss = functional.cross_entropy(scores, target) + too_long
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if connector.positions is not None:
        start_positions(model, connector.positions, length)


def draw(features: Tensor, generator: torch.Generator) -> Tensor:
    """Features of pictures [M, N, Dv] -> BATCH of them [B, Dv], the pooled one of a picture as often as its cells."""
    pictures, cells = (torch.randint(size, (BATCH,), generator=generator) for size in features.shape[:2])
    pooled = torch.rand(BATCH, generator=generator) < 0.5
    return features[pictures, cells.masked_fill(pooled, 0)]


def start_positions(model: VisionLanguageModel, positions: Tensor, length: Tensor) -> None:
    """Where a cell is of the whole, in words, half as loud as what is seen there. The pooled feature has no place."""
    grid = math.isqrt(model.vision.feature_count - 1)
    along = (torch.arange(grid) + 0.5) / grid * 2 - 1  # -1 to 1
    down, across = torch.meshgrid(along, along, indexing="ij")
    _, words = embed_words(model, [word for pair in SIDES for word in pair])
    left, right, above, below = functional.normalize(words, dim=-1) * length / 2
    places = [
        amount.clamp(min=0).flatten().outer(word)
        for amount, word in ((-across, left), (across, right), (-down, above), (down, below))
    ]
    with torch.no_grad():
        positions.copy_(torch.cat([torch.zeros(1, len(left)), sum(places)]))


def fit_colours(
    rows: Sequence[Row], store: FeatureStore, colours: Sequence[str], start: int, seed: int
) -> nn.Module:
    """Features from channel `start` on [B, Dv - start] -> scores of `colours`, as the pictures of one colour teach them."""
    asked = [row for row in rows if row.task == "colour" and row.noun]
    inner = torch.stack([store[row.picture][0, start:] for row in asked])
    targets = functional.one_hot(
        torch.tensor([colours.index(row.answer.lower().strip(".")) for row in asked]), len(colours)
    )
    return fit(inner, targets.float(), torch.ones(len(asked)), seed).requires_grad_(False)


def embed_words(model: VisionLanguageModel, words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """-> the mean of all the language model's embeddings [Dl], and how those of the words differ from it [W, Dl]."""
    tokenizer = model.language.tokenizer
    with torch.no_grad():
        table = model.language.model.get_input_embeddings().weight.float()
        ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
        centre = table.mean(0)
        return centre, torch.stack([table[each].mean(0) for each in ids]) - centre
