"""python -m vlm.describe --preset phi-3.5: what a preset is made of, and the memory that serving and training take."""

import argparse
import sys

from vlm.config import ModelConfig, load_model_config
from vlm.errors import UserError
from vlm.model.adapter import check_adapter, find_adapter
from vlm.model.sizes import GIGABYTE, Description, describe


def table(sizes: Description, config: ModelConfig) -> str:
    """For people: dimensions, parameters by part, memory in gigabytes."""
    counted = {**sizes.parameters, "trainable": sizes.trainable, "language, lora and connector": sizes.total}
    lines = [
        f"preset     {sizes.preset}",
        f"encoder    {sizes.encoder}   {config.vision.encoder}, {config.vision.weights} ({sizes.found['vision']})",
        f"projector  {sizes.projector}   {config.connector.kind}, {_counted(sizes.visual_tokens)}",
        f"LLM        {sizes.embedding_size}   {config.language.weights} ({sizes.found['language']})",
        "",
        *(f"{count:>15,}  parameters, {part}" for part, count in counted.items()),
        "",
    ]
    for nf4, name in ((True, "4 bits"), (False, "16 bits")):
        served, trained = sizes.serving_bytes(nf4) / GIGABYTE, sizes.training_bytes(nf4) / GIGABYTE
        lines += [
            f"{served:>9.1f} GB  to serve in {name}, prompt and answer of {sizes.context} tokens",
            f"{trained:>9.1f} GB  to train in {name}, batch of 2, 512 tokens, gradient checkpointing",
        ]
    return "\n".join(lines)


def _counted(visual_tokens: int) -> str:
    return f"{visual_tokens} visual token" + "s" * (visual_tokens != 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm.describe", description=__doc__)
    parser.add_argument("--preset", default="embedded", help="a preset's name or a YAML file")
    parser.add_argument("--adapter", help="also check that this adapter fits the preset")
    arguments = parser.parse_args()
    try:
        config = load_model_config(arguments.preset)
        if arguments.adapter:
            check_adapter(find_adapter(arguments.adapter), config)
        print(table(describe(config), config))
    except UserError as error:
        sys.exit(f"describe: {error}")


if __name__ == "__main__":
    main()
