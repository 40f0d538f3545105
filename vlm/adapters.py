"""python -m vlm.adapters import SOURCE --output FOLDER: a public LLaVA checkpoint -> an adapter folder.
python -m vlm.adapters export ADAPTER --to llava | gguf | merged | lora: an adapter -> what other programs load.

  llava   a folder for Transformers' LlavaForConditionalGeneration and vLLM
  gguf    language model, vision tower and LoRA for llama.cpp, and a Modelfile for Ollama
  merged  the same with the LoRA merged into the language model
  lora    the LoRA alone for llama.cpp, for an adapter whose language model is a GGUF file
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from vlm.config import ModelConfig
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, load_eyes, lora_folder
from vlm.model.adapter_folder import adapter_config, adapter_name, find_adapter
from vlm.model.checkpoints import find_checkpoint
from vlm.terminal import command
from vlm.whole_files import whole_folder

FORMS = ("llava", "gguf", "merged", "lora")
PRECISIONS = ("float32", "float16", "bfloat16")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Within it there is an empty folder that becomes `folder` once all is well. Raises UserError where that exists, and
    where it cannot be written."""
    if folder.exists():
        raise UserError(f"{folder} exists already. Choose another --output, or remove it.")
    try:
        with whole_folder(folder) as working:
            yield working
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder} could not be written ({error}). Free some disk space, or choose another --output."
        ) from error


def import_adapter(source: str, output: Path) -> None:
    from vlm.model.llava_import import write_adapter

    with new_folder(output) as working:
        write_adapter(source, find_checkpoint(source), working)


@dataclass(frozen=True)
class Export:
    """What to write. `precision`: of the weights, None for as they are stored. `keep_lora`: llava's LoRA is left beside.
    `class_token`: where llama.cpp puts it (vlm/export/mmproj_gguf.py)."""

    form: str
    precision: str | None = None
    keep_lora: bool = False
    class_token: str = "last"


def export_adapter(adapter: str, export: Export, output: Path | None = None) -> Path:
    """The folder that was written."""
    folder = find_adapter(adapter)
    config, called = adapter_config(folder), adapter_name(folder).replace("/", "-")
    output = output or Path("exports") / f"{called}-{export.form}"
    with new_folder(output) as working:
        if export.form == "lora":
            from vlm.export.gguf_folder import write_lora_alone

            write_lora_alone(config, lora_folder(folder), working, called)
        else:
            _export_whole(config, folder, export, working, called)
    return output


def _export_whole(config: ModelConfig, adapter: Path, export: Export, output: Path, called: str) -> None:
    from vlm.export.gguf_folder import check_gguf, write_gguf
    from vlm.export.llava_folder import check_llava, write_llava
    from vlm.export.llava_parts import in_the_way
    from vlm.model.eyes import build_eyes
    from vlm.model.fusion import build_fusion
    from vlm.model.language import build_language
    from vlm.model.sizes import architecture, language_architecture
    from vlm.model.vlm import VisionLanguageModel

    if config.fusion.kind != "prefix":
        in_the_way(
            f'the fusion, of the kind "{config.fusion.kind}": these formats have visual tokens in the prompt'
        )
    sizes, _ = language_architecture(config.language.weights)
    eyes = build_eyes(config, sizes.hidden_size)
    load_eyes(eyes, adapter)
    check = check_llava if export.form == "llava" else check_gguf
    check(eyes, sizes)  # before gigabytes are read
    stored, _ = architecture(config.language.weights)
    dtype = export.precision or str(stored.dtype or torch.float16).removeprefix("torch.")
    language = build_language(replace(config.language, dtype=dtype, quantisation="none"), "cpu")
    model = VisionLanguageModel(eyes, build_fusion(config.fusion, language.causal), language)
    keeps_lora = export.form == "gguf" or (export.form == "llava" and export.keep_lora)
    apart = lora_folder(adapter) if keeps_lora else None
    if apart is None:
        load_adapter(model, adapter)
        language.merge_lora()
    if export.form == "llava":
        write_llava(model, output, apart)
    else:
        write_gguf(model, config, output, called, apart, export.class_token)


@command("adapters")
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm.adapters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    imported = commands.add_parser("import", help="a public LLaVA checkpoint -> an adapter folder")
    imported.add_argument("source", help="a folder, or user/name or user/name@revision on the hub")
    imported.add_argument("--output", type=Path, required=True, help="the adapter folder to write")
    exported = commands.add_parser("export", help="an adapter -> what other programs load")
    exported.add_argument("adapter", help="a shipped adapter, an adapter folder, or user/name on the hub")
    exported.add_argument("--to", choices=FORMS, required=True, help="what to write")
    exported.add_argument("--output", type=Path, help="the folder to write (default: exports/ADAPTER-FORM)")
    exported.add_argument(
        "--precision", choices=PRECISIONS, help="of the weights (default: as they are stored)"
    )
    exported.add_argument(
        "--keep-lora",
        action="store_true",
        help="llava: leave the LoRA beside the language model, for PEFT and vLLM",
    )
    exported.add_argument(
        "--class-token",
        choices=("last", "first"),
        default="last",
        help="gguf, merged: where llama.cpp puts it; first is for builds in which its issue 25814 is mended",
    )
    arguments = parser.parse_args()
    if arguments.command == "import":
        import_adapter(arguments.source, arguments.output)
        print(f"{arguments.output} is an adapter. Serve it: VLM_ADAPTER={arguments.output} make run")
    else:
        export = Export(arguments.to, arguments.precision, arguments.keep_lora, arguments.class_token)
        written = export_adapter(arguments.adapter, export, arguments.output)
        print("\n".join(str(file) for file in sorted(written.rglob("*")) if file.is_file()))


if __name__ == "__main__":
    main()
