"""A GGUF file -> folders that Transformers loads in a second.

Reading the GGUF itself takes long at every start, so the folders are cached. bfloat16 keeps the dequantised values well
within the error of the 4-bit blocks they come from.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm.errors import plain_load_errors
from vlm.weights.cache import check_space


def write_tokenizer(file: Path, folder: Path) -> None:
    """Write the tokenizer, its chat template and `config.json` of the GGUF `file` into `folder`."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

    with _plain_errors(file):
        # The class that reads nothing else: AutoTokenizer reads the whole metadata twice more.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    config.dtype = torch.bfloat16
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    # What a GGUF leaves out and the model's own class adds, such as Qwen's one form of accents, goes into the file too:
    # the plain class, which is read in half the time, then makes the same tokens.
    AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))


def write_model(file: Path, folder: Path) -> None:
    """Write what `write_tokenizer` does, and the weights as `model.safetensors` in bfloat16.

    A head that the file stores apart from the embeddings, as Qwen's does in more bits, stays apart."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    write_tokenizer(file, folder)
    with _plain_errors(file):
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            config=AutoConfig.from_pretrained(folder),
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
    tied = model.config.tie_word_embeddings
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    check_space(folder, sum(tensor.nbytes for tensor in weights.values()))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.generation_config.save_pretrained(folder)


@contextmanager
def _plain_errors(file: Path) -> Iterator[None]:
    """Within it whatever is wrong with the file is a UserError."""
    remedy = "Copy or download it again, or give the file of a language model that Transformers knows."
    with plain_load_errors(f"{file} could not be read as a GGUF", remedy):
        try:
            yield
        except (struct.error, IndexError) as error:  # of a file that ends too early
            raise ValueError(str(error)) from error
