"""CLIP's vision tower and the connector -> mmproj-*.gguf, as llama.cpp's llava has them.

llama.cpp takes the features behind the layer before the last of those in the file, drops the class token, and puts
them through two linear layers with a GELU between. Its GELU is the one with tanh, which differs from the exact one in
the fourth digit.

Its builds since May 2025 put the class token behind the patches, and count as if it stood before them (llama.cpp's issue
25814): each patch gets its neighbour's position, and the class token is taken for the last patch, the first patch for
the class token. With the rows of the position embedding in that order every patch has its own position again, and all
but the first are seen as here.
"""

from pathlib import Path

import gguf
from gguf import MODEL_ARCH, MODEL_TENSOR, TENSOR_NAMES
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlm.export.gguf_tensors import Kind, write_tensors
from vlm.export.llava_parts import LlavaParts, in_the_way

ACTIVATIONS = {"quick_gelu": False, "gelu": True}  # the tower's -> clip.use_gelu
FEATURE_LAYER = "clip.vision.feature_layer"
LAYER_PARTS = {
    "self_attn.q_proj": MODEL_TENSOR.V_ENC_ATTN_Q,
    "self_attn.k_proj": MODEL_TENSOR.V_ENC_ATTN_K,
    "self_attn.v_proj": MODEL_TENSOR.V_ENC_ATTN_V,
    "self_attn.out_proj": MODEL_TENSOR.V_ENC_ATTN_O,
    "layer_norm1": MODEL_TENSOR.V_ENC_INPUT_NORM,
    "layer_norm2": MODEL_TENSOR.V_ENC_POST_ATTN_NORM,
    "mlp.fc1": MODEL_TENSOR.V_ENC_FFN_UP,
    "mlp.fc2": MODEL_TENSOR.V_ENC_FFN_DOWN,
}


def check_mmproj(parts: LlavaParts) -> None:
    """Raises UserError that names the part which llama.cpp has otherwise."""
    config = parts.tower.config
    if parts.class_token:
        in_the_way('vision.features, which is "patches": llama.cpp drops the class token, as "grid" does')
    if config.hidden_act not in ACTIVATIONS:
        in_the_way(f"the vision tower's {config.hidden_act}: llama.cpp knows {', '.join(ACTIVATIONS)}")
    if parts.norm and parts.norm.eps != config.layer_norm_eps:
        in_the_way(
            f"the connector's LayerNorm with eps {parts.norm.eps}: the tower's is {config.layer_norm_eps}"
        )


def write_mmproj(parts: LlavaParts, file: Path, kind: Kind, name: str, class_token: str = "last") -> None:
    """`kind`: of the matrices; bfloat16 is not known to llama.cpp's convolution, and becomes float16. `class_token`:
    where llama.cpp puts it, "last" or, in builds that have that mended, "first"."""
    config = parts.tower.config
    used = config.num_hidden_layers + 1 + parts.layer  # layers behind which the features are
    kept = min(used + 1, config.num_hidden_layers)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[MODEL_ARCH.MMPROJ])
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name(name)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_image_size(config.image_size)
    writer.add_vision_patch_size(config.patch_size)
    writer.add_vision_embedding_length(config.hidden_size)
    writer.add_vision_feed_forward_length(config.intermediate_size)
    writer.add_vision_block_count(kept)
    writer.add_vision_head_count(config.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(config.layer_norm_eps)
    writer.add_vision_projection_dim(len(parts.biases[1]))
    writer.add_vision_use_gelu(ACTIVATIONS[config.hidden_act])
    writer.add_vision_image_mean(list(OPENAI_CLIP_MEAN))
    writer.add_vision_image_std(list(OPENAI_CLIP_STD))
    if used == kept:  # the last layer of all
        writer.add_array(FEATURE_LAYER, [used])
    write_tensors(writer, file, _tensors(parts, kept, class_token), Kind.F16 if kind == Kind.BF16 else kind)


def _tensors(parts: LlavaParts, kept: int, class_token: str) -> dict[str, Tensor]:
    embeddings = parts.tower.embeddings
    positions = embeddings.position_embedding.weight
    tensors = {
        TENSOR_NAMES[MODEL_TENSOR.V_ENC_EMBD_CLS]: embeddings.class_embedding,
        f"{TENSOR_NAMES[MODEL_TENSOR.V_ENC_EMBD_PATCH]}.weight": embeddings.patch_embedding.weight,
        f"{TENSOR_NAMES[MODEL_TENSOR.V_ENC_EMBD_POS]}.weight": (
            positions.roll(-1, dims=0) if class_token == "last" else positions
        ),
    }
    modules = {TENSOR_NAMES[MODEL_TENSOR.V_PRE_NORM]: parts.tower.pre_layrnorm}
    for number, layer in enumerate(parts.tower.encoder.layers[:kept]):
        for theirs, ours in LAYER_PARTS.items():
            modules[TENSOR_NAMES[ours].format(bid=number)] = layer.get_submodule(theirs)
    if parts.norm:  # llama.cpp has a LayerNorm of the tower there, which LLaVA leaves out
        modules[TENSOR_NAMES[MODEL_TENSOR.V_POST_NORM]] = parts.norm
    for name, module in modules.items():
        tensors |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    for number, weight, bias in zip((0, 2), parts.weights, parts.biases, strict=True):
        name = TENSOR_NAMES[MODEL_TENSOR.V_MMPROJ].format(bid=number)
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return tensors
