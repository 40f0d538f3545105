"""A tokenizer of Transformers -> the vocabulary of a GGUF file, of the two kinds that llama.cpp shares with it.

`gpt2`: bytes as visible characters, merged in pairs (Qwen, Llama 3, SmolLM). `llama`: SentencePiece's pairs with bytes
to fall back on (Llama 2, Vicuna, Phi-3).
"""

import json
from typing import Any

import gguf
from gguf import TokenType

from vlm.errors import UserError
from vlm.model.chat_templates import server_template
from vlm.model.prompts import control_tokens, template_frame

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a text is cut before pairs are merged -> what llama.cpp calls it
CUTS = {
    (_CONTRACTION + r"\p{N}" + _REST,): "qwen2",
    (_CONTRACTION + r"\p{N}{1,3}" + _REST,): "llama-bpe",
    ("ByteLevel",): "gpt-2",
    ("Digits", "ByteLevel"): "smollm",
}


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, rows: int) -> None:
    """`rows`: of the embeddings, which may be more than there are tokens. Raises UserError for another kind."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model["type"] != "BPE":
        raise UserError(f"A tokenizer of the kind {model['type']} cannot be written as GGUF here: BPE can.")
    tokens, types = _tokens(tokenizer, model, rows)
    pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    merges = [(first, second) for first, second in pairs]
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, merges))
        writer.add_add_space_prefix(_puts_space_in_front(tokenizer))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_cut(backend))
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_special(writer, tokenizer)


def _tokens(tokenizer: Any, model: dict[str, Any], rows: int) -> tuple[list[str], list[TokenType]]:
    known = {id: token for token, id in model["vocab"].items()}
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for id in range(max(rows, len(tokenizer))):
        token, kind = known.get(id, f"[PAD{id}]"), TokenType.NORMAL if id in known else TokenType.UNUSED
        if model.get("byte_fallback") and token.startswith("<0x") and len(token) == 6:
            kind = TokenType.BYTE
        if id in added:
            token = added[id].content
            kind = TokenType.CONTROL if added[id].special else TokenType.USER_DEFINED
        if id == tokenizer.unk_token_id and model.get("byte_fallback"):
            kind = TokenType.UNKNOWN
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _scores(tokens: list[str], merges: list[tuple[str, str]]) -> list[float]:
    """llama.cpp merges the pair whose token has the highest score, Transformers the pair that stands first."""
    rank: dict[str, int] = {}
    for place, pair in enumerate(merges):
        rank.setdefault("".join(pair), place)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _puts_space_in_front(tokenizer: Any) -> bool:
    return (
        tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False).input_ids)[0][0] == "\u2581"
    )


def _cut(backend: dict[str, Any]) -> str:
    before = backend.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    patterns = tuple(step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split")
    found = CUTS.get(patterns or tuple(step.get("type", "") for step in steps))
    if not found:
        raise UserError(
            "How this tokenizer cuts a text before it merges is not known here. Export with --to llava, and let "
            "llama.cpp's own convert_hf_to_gguf.py write the language model."
        )
    return found


def _add_special(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    if begin is not None:
        writer.add_bos_token_id(begin)
    writer.add_add_bos_token(begin is not None and tokenizer("").input_ids[:1] == [begin])
    writer.add_add_eos_token(False)
    if end is not None:
        writer.add_eos_token_id(end)
    if pad is not None:
        writer.add_pad_token_id(pad)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    if (turn_end := end_of_turn(tokenizer)) is not None:
        writer.add_eot_token_id(turn_end)
    writer.add_chat_template(server_template(tokenizer.chat_template))


def end_of_turn(tokenizer: Any) -> int | None:
    """The control token that the template puts behind an answer."""
    ((_, _, after),) = template_frame(tokenizer, 1, True, None)
    ids = tokenizer(after, add_special_tokens=False).input_ids[:1]
    control = control_tokens(tokenizer)
    return next((id for id in ids if id in control), None)
