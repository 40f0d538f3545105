"""python -m vlm.describe --preset phi-3.5: what a preset is made of, and the memory that serving and training take.

With --analyze FILE: what a file of encoder weights, projection weights or embeddings holds, which language models it fits,
and a preset that integrates it.
"""

import argparse
import re
from pathlib import Path

import yaml

from vlm.config import ModelConfig, load_model_config
from vlm.config_reader import to_dict
from vlm.errors import UserError
from vlm.model.adapter_fit import check_adapter, with_all_settings
from vlm.model.adapter_folder import find_adapter
from vlm.model.analysis import analyse, misfit, plan, report
from vlm.model.fusion import fusion_settings
from vlm.model.sizes import GIGABYTE, TRAINING_BATCH, TRAINING_TOKENS, Description, describe
from vlm.terminal import command


def table(sizes: Description, config: ModelConfig) -> str:
    """For people: dimensions, parameters by part, memory in gigabytes."""
    counted = {**sizes.parameters, "trainable": sizes.trainable, "language, lora and connector": sizes.total}
    lines = [
        f"preset     {sizes.preset}",
        f"encoder    {sizes.encoder}   {config.vision.encoder}, {config.vision.weights} ({sizes.found['vision']})",
        f"projector  {sizes.projector}   {config.connector.kind}, {_counted(sizes.visual_tokens)}",
        f"fusion     {config.fusion.kind}",
        f"LLM        {sizes.embedding_size}   {config.language.weights} ({sizes.found['language']})",
        "",
        drawing(sizes, config),
        "",
        *(f"{count:>15,}  parameters, {part}" for part, count in counted.items()),
        "",
    ]
    for nf4, name in ((True, "4 bits"), (False, "16 bits")):
        served, trained = sizes.serving_bytes(nf4) / GIGABYTE, sizes.training_bytes(nf4) / GIGABYTE
        lines += [
            f"{served:>9.1f} GB  to serve in {name}, {sizes.cells} tokens in the cache",
            f"{trained:>9.1f} GB  to train in {name}, batch of {TRAINING_BATCH}, {TRAINING_TOKENS} tokens, "
            "gradient checkpointing",
        ]
    return "\n".join(lines)


def drawing(sizes: Description, config: ModelConfig) -> str:
    """The way of a picture into the language model, with what it is on each step."""
    return (
        f"picture ─► {sizes.encoder} ─► {config.connector.kind} ─► {sizes.visual_tokens} x {sizes.embedding_size} "
        f"─► {fusion_settings(config.fusion).told} ─► {sizes.layers} layers of {sizes.embedding_size}"
    )


def _counted(visual_tokens: int) -> str:
    return f"{visual_tokens} visual token" + "s" * (visual_tokens != 1)


def analysis(file: Path, base: ModelConfig, output: Path | None) -> str:
    """The report on a file; the preset that integrates it behind it, or in `output`."""
    found = analyse(file)
    told = report(found)
    name = re.sub(r"[^a-z0-9.-]+", "-", (output or file).stem.lower()).strip("-") or "mine"
    config = with_all_settings(plan(found, base, name))
    if lacking := misfit(found, config):
        if output:
            raise UserError(lacking)
        return f"{told}\n\n{lacking}"
    preset = yaml.safe_dump(to_dict(config), sort_keys=False)
    comment = "".join(f"# {line}\n" for line in told.splitlines())
    if output is None:
        return f"{told}\n\n{preset}"
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"A preset is a YAML file: give {output}.yaml as --output.")
    try:
        with output.open("x", encoding="utf-8") as file_of_preset:
            file_of_preset.write(comment + preset)
    except FileExistsError:
        raise UserError(f"{output} is there already. Remove it, or choose another --output.") from None
    except OSError as error:
        raise UserError(
            f"{output} could not be written: {error.strerror}. Choose another --output."
        ) from error
    return f"{told}\n\nThe preset is in {output}. Its sizes: python -m vlm.describe --preset {output}"


@command("describe")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm.describe", description=__doc__)
    parser.add_argument("--preset", default="embedded", help="a preset's name or a YAML file")
    parser.add_argument("--adapter", help="also check that this adapter fits the preset")
    parser.add_argument(
        "--analyze", type=Path, help="a file of weights or embeddings, or an encoder's folder"
    )
    parser.add_argument("--output", type=Path, help="with --analyze: write the preset here")
    arguments = parser.parse_args()
    config = load_model_config(arguments.preset)
    if arguments.analyze:
        print(analysis(arguments.analyze, config, arguments.output))
        return
    if arguments.adapter:
        check_adapter(find_adapter(arguments.adapter), config)
    print(table(describe(config), config))


if __name__ == "__main__":
    main()
