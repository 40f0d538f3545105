"""A GGUF file -> a folder that Transformers loads in a second.

Reading the GGUF itself takes about 25 s at every start, so the converted folder is cached. bfloat16 keeps the
dequantised values well within the error of the 4-bit blocks they come from.
"""

from pathlib import Path


def convert_gguf(file: Path, folder: Path) -> None:
    """Write config, tokenizer and `model.safetensors` (bfloat16) of the GGUF `file` into `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tied = model.config.tie_word_embeddings
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    del config.quantization_config  # the weights are plain tensors now
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
