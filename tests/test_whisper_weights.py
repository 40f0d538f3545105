"""A CTranslate2 file is read without trusting it, and gives openai-whisper every weight."""

import struct
from pathlib import Path

import numpy as np
import pytest

from vlm.inputs.whisper_weights import BINARY_VERSION, load_openai_whisper, read_variables, to_state_dict
from vlm.weights.resolve import resolve


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve("whisper-base")


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    return string(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, kind, len(data)) + data


def model_file(*variables: bytes, version: int = BINARY_VERSION, spec: str = "WhisperSpec") -> bytes:
    head = struct.pack("<I", version) + string(spec) + struct.pack("<II", 3, len(variables))
    return head + b"".join(variables) + struct.pack("<I", 1) + string("b/alias") + string("a/weight")


WEIGHT = variable("a/weight", (2, 3), 4, np.arange(6, dtype=np.float16).tobytes())


def test_the_reader_returns_the_arrays_of_a_model_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_file(WEIGHT, variable("a/heads", (), 2, b"\x08\0")))
    arrays = read_variables(tmp_path / "model.bin")
    assert list(arrays) == ["a/weight", "a/heads"]
    np.testing.assert_array_equal(arrays["a/weight"], [[0, 1, 2], [3, 4, 5]])
    assert int(arrays["a/heads"]) == 8


def test_the_reader_rejects_a_file_cut_off_anywhere(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.bin", model_file(WEIGHT)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.bin"):
            read_variables(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(model_file(WEIGHT, version=5), id="another version"),
        pytest.param(model_file(WEIGHT, spec="TransformerSpec"), id="another model"),
        pytest.param(model_file(WEIGHT) + b"\0", id="bytes left over"),
        pytest.param(model_file(variable("a/weight", (2, 4), 4, bytes(12))), id="shape and size disagree"),
        pytest.param(model_file(variable("a/weight", (65_536,) * 4, 4, b"")), id="a product that wraps to 0"),
        pytest.param(model_file(variable("a/weight", (2, 3), 5, bytes(12))), id="bfloat16"),
        pytest.param(model_file(variable("a/weight", (1,) * 9, 4, bytes(2))), id="nine dimensions"),
        pytest.param(b"\x80\x04pickle" * 40, id="not a model"),
    ],
)
def test_the_reader_rejects_what_it_does_not_know(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.bin"):
        read_variables(tmp_path / "model.bin")


def test_keys_with_a_bias_are_refused_because_whisper_has_none(folder: Path) -> None:
    variables = read_variables(folder / "model.bin")
    bias = variables["encoder/layer_0/self_attention/linear_0/bias"].copy()
    bias[512] = 1  # the first of the keys' rows
    with pytest.raises(ValueError, match="keys have a bias"):
        to_state_dict(variables | {"encoder/layer_0/self_attention/linear_0/bias": bias})


def test_every_weight_of_openai_whisper_comes_from_the_file(folder: Path) -> None:
    pytest.importorskip("whisper", reason="openai-whisper is not installed")
    model = load_openai_whisper(folder)
    variables = read_variables(folder / "model.bin")
    assert model.is_multilingual
    assert (
        sum(each.numel() for each in model.state_dict().values()) == 72_593_920
    )  # OpenAI's base, with positions
    stacked = variables["decoder/layer_3/attention/linear_1/weight"].astype(np.float32)  # keys over values
    values = model.decoder.blocks[3].cross_attn.value.weight.detach().numpy()
    np.testing.assert_array_equal(values, stacked[512:])
