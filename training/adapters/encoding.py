"""The features of the pictures that a run trains on and watches, each encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.config import TrainingConfig
from training.data import Row, pictures_of
from training.data.augmentation import FALSIFIES, view_ids
from training.data.features import FeatureStore
from vlm.config import ModelConfig


def features_of(
    rows: Sequence[Row],
    config: TrainingConfig,
    model_config: ModelConfig,
    encoder: Any,
    held_out: Sequence[Row] = (),
) -> FeatureStore:
    """The features of the training pictures of `rows` and of the validation pictures of `held_out`. Only pictures that have
    a question of a known task get views: no other is ever shown as one. Where all are kept, the data are not read."""
    data = Path(config.data)
    store = FeatureStore(data, model_config.vision)
    viewed = {row.picture for row in rows if row.task in FALSIFIES}

    def ids_of(picture: str) -> list[str]:
        return [picture, *(view_ids(picture, config.augmentation) if picture in viewed else ())]

    for split, shown in {"train": rows, "validation": held_out}.items():
        wanted = {row.picture: ids_of(row.picture) for row in shown}
        if any(name not in store for ids in wanted.values() for name in ids):
            pictures = pictures_of(data, split, config.source_names)
            contents = ((name, content) for picture, content in pictures for name in wanted.get(picture, ()))
            store.add(contents, encoder, config.augmentation)
    return store
