"""The Modelfile with which Ollama serves exported GGUF files: `ollama create NAME -f Modelfile`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm.model.prompts import SYSTEM, control_tokens, template_frame


def modelfile(tokenizer: Any, models: Sequence[Path], lora: Path | None, system: str, context: int) -> str:
    """`models`: the language model, and the vision tower with its projector. `lora` is applied to the first."""
    lines = [f"FROM ./{file.name}" for file in models]
    if lora:
        lines.append(f"ADAPTER ./{lora.name}")
    lines.append(f'TEMPLATE """{_template(tokenizer)}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f'PARAMETER stop "{token}"' for token in _stops(tokenizer)]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_ctx {context}"]
    return "\n".join(lines) + "\n"


def _template(tokenizer: Any) -> str:
    """The chat template in Ollama's own language, for one turn, which it repeats."""
    begin = tokenizer.bos_token or ""  # which Ollama adds by itself
    ((plain, before_answer, after),) = template_frame(tokenizer, 1, True, None)
    ((told, _, _),) = template_frame(tokenizer, 1, True, SYSTEM)
    told = told.removeprefix(begin).replace(SYSTEM, "{{ .System }}")
    before = f"{{{{ if .System }}}}{told}{{{{ else }}}}{plain.removeprefix(begin)}{{{{ end }}}}"
    return f"{before}{{{{ .Prompt }}}}{before_answer}{{{{ .Response }}}}{after}"


def _stops(tokenizer: Any) -> list[str]:
    ((_, _, after),) = template_frame(tokenizer, 1, True, None)
    ends = (token for token in control_tokens(tokenizer).values() if after.startswith(token))
    return sorted({tokenizer.eos_token, *ends})
