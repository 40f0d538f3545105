"""python -m training.push runs/embedded/adapter user/name: an adapter folder -> the Hugging Face hub, with a model card.

The card is made of what the folder holds, as README.md beside it, anew at each push: what is written by hand belongs in
limits.md. Only the files of an adapter are uploaded. `--adapter user/name` loads it from there.
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCardData

from vlm.config import ModelConfig
from vlm.config_reader import to_dict
from vlm.errors import UserError
from vlm.model.about import about
from vlm.model.adapter_folder import FILES, PLOT, adapter_config, find_adapter, read_description
from vlm.terminal import command
from vlm.weights.hub import is_hub_name, plain_hub_errors, split_revision
from vlm.weights.resolve import public_name
from vlm.whole_files import write_whole

CARD = "README.md"
ON_HUB = {  # what a weight or a source is called there, where its name here is another
    "qwen2.5-coder-1.5b-instruct": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
    "llava": "liuhaotian/LLaVA-Instruct-150K",
}


def push(folder: Path, name: str, private: bool = False, licence: str | None = None) -> str:
    """Write the card, make the repository where there is none, upload; returns its address.

    Raises UserError where the folder is no adapter, and where the hub refuses or cannot be reached."""
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}. Give an adapter folder, such as runs/embedded/adapter."
        )
    if not is_hub_name(name):
        raise UserError(f"The repository's name is written user/name; {name!r} was given.")
    find_adapter(str(folder))
    write_whole(folder / CARD, model_card(folder, name, licence))
    hub = HfApi()
    remedy = (
        "Log in with `hf auth login` and a token that may write, check the name and the network, and give the same "
        "command again."
    )
    with (
        tempfile.TemporaryDirectory() as place,
        plain_hub_errors(f"{folder} could not be pushed to {name}", remedy),
    ):
        copy = public_copy(folder, Path(place))
        address = hub.create_repo(name, private=private, exist_ok=True)
        message = "Push the adapter and its card"
        hub.upload_folder(repo_id=name, folder_path=copy, allow_patterns=FILES, commit_message=message)
    return str(address)


def public_copy(folder: Path, place: Path) -> Path:
    """A copy of the adapter folder with its `public_config`."""
    copy = Path(shutil.copytree(folder, place / "adapter"))
    description = read_description(copy) | {"model": to_dict(public_config(copy))}
    (copy / "config.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return copy


def public_config(folder: Path) -> ModelConfig:
    """The model that an adapter was trained for, without where on this machine its weights lie."""
    config = adapter_config(folder)
    parts = {part: getattr(config, part) for part in ("vision", "language", "speech")}
    named = {part: replace(told, weights=public_name(told.weights)) for part, told in parts.items()}
    return replace(config, **named)


def model_card(folder: Path, name: str, licence: str | None = None) -> str:
    """Front matter for the hub, how to use it, and what the page tells of the adapter."""
    config, told = public_config(folder), read_description(folder)
    weights = ON_HUB.get(config.language.weights, split_revision(config.language.weights)[0])
    base = weights if is_hub_name(weights) else None
    trained = told.get("training") or {}
    lora = bool(config.lora.rank)
    names = dict.fromkeys(source["name"] for source in trained.get("sources", ()))  # a source may enter twice
    sources = [ON_HUB.get(name, name) for name in names]
    data = ModelCardData(
        base_model=base,
        library_name="peft" if lora else None,
        license=licence,
        pipeline_tag="image-text-to-text",
        tags=["vision-language-model", *(["lora"] if lora else []), "safetensors", config.name],
        datasets=sources or None,
    )
    plot = f"![Loss and learning rates in training]({PLOT})\n\n" if (folder / PLOT).is_file() else ""
    return f"""---
{data.to_yaml()}
---

# {name.rpartition("/")[2]}

{what_lets(lora, bool(told.get("trained_whole")))} {base or "a language model"} answer questions about pictures: an
adapter for the preset `{config.name}`, in safetensors, without code. From the repository of the project that trained it:

```
python -m vlm "What is this?" --preset {config.name} --adapter {name} --image picture.jpg
```

{plot}{about(config, folder)}
"""


def what_lets(lora: bool, trained_whole: bool) -> str:
    """The parts of the adapter, as the beginning of a sentence."""
    if lora:
        return "The projector and the LoRA that let"
    if trained_whole:
        return "The projector and the trained weights that let"
    return "The projector that lets"


@command("push")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.push", description=__doc__)
    parser.add_argument("adapter", type=Path, help="the adapter's folder")
    parser.add_argument("name", help="user/name of the repository; it is made where there is none")
    parser.add_argument("--private", action="store_true", help="a new repository is for you only")
    parser.add_argument(
        "--license", help="of the adapter, as the hub writes it: apache-2.0, cc-by-sa-4.0, ..."
    )
    arguments = parser.parse_args()
    print(push(arguments.adapter, arguments.name, arguments.private, arguments.license))


if __name__ == "__main__":
    main()
