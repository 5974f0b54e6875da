import hashlib
import json
import math
import struct
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hansa import codec, tensors
from hansa.core import trees
from hansa.core.task import Shareable
from hansa.core.trees import Spec, Tree
from hansa.errors import CheckpointError, SpecError, StorageError

WEIGHT, BIAS, STEPS = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2), np.array(7, np.int64)
MODEL: Tree = {"1.weight": WEIGHT, "head": {"bias": BIAS, "steps": STEPS}}


def buffer(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str = "F32", shape: Any = (1,), at: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


def test_a_message_comes_back_with_its_leaves_headers_and_metrics() -> None:
    sent = Shareable(MODEL, {"loss": 0.25, "bad": math.nan}, {"round": 3, "lr": 0.1, "name": "nörd", "last": True, "cap": math.inf})
    got = codec.decode(codec.encode(sent))
    assert trees.equal(got.body, MODEL)
    assert got.metrics["loss"] == 0.25
    assert math.isnan(got.metrics["bad"])
    assert dict(got.headers) == dict(sent.headers)
    assert [type(got.headers[k]) for k in ("round", "lr", "last")] == [int, float, bool]


def test_the_bytes_do_not_depend_on_the_order_of_keys() -> None:
    left = Shareable({"a": np.zeros(2), "b": {"c": np.ones(1), "d": np.ones(3)}}, {"x": 1.0, "y": 2.0}, {"p": 1, "q": 2})
    right = Shareable({"b": {"d": np.ones(3), "c": np.ones(1)}, "a": np.zeros(2)}, {"y": 2.0, "x": 1.0}, {"q": 2, "p": 1})
    assert codec.encode(left) == codec.encode(right)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ml_dtypes.bfloat16])
def test_every_dtype_of_the_list_comes_back_bit_for_bit(dtype: Any) -> None:
    leaf = np.array([[0, 1], [1, 0]]).astype(dtype)
    got = codec.decode(codec.encode(Shareable({"x": leaf, "scalar": leaf[0, 1], "none": leaf[:0]}))).body
    assert got["x"].dtype == leaf.dtype  # type: ignore[union-attr]  # a leaf
    assert trees.equal(got, {"x": leaf, "scalar": np.asarray(leaf[0, 1]), "none": leaf[:0]})


def test_leaves_of_unlike_sizes_are_aligned_and_a_transposed_leaf_keeps_its_values() -> None:
    body = {"a": np.ones(3, np.int8), "b": np.arange(6.0).reshape(2, 3).T, "c": np.ones(3, np.float16)}
    got = codec.decode(codec.encode(Shareable(body))).body
    assert trees.equal(got, body)
    assert all(leaf.flags.aligned for _, leaf in trees.leaves(got))


def test_a_branch_without_leaves_is_kept() -> None:
    assert codec.decode(codec.encode(Shareable({"state": {"momentum": {}}}))).body == {"state": {"momentum": {}}}


def test_decoding_makes_views_of_the_buffer() -> None:
    data = bytearray(codec.encode(Shareable({"w": np.zeros(4)})))
    got = codec.decode(data).body["w"]
    data[-1] = 0x40
    assert isinstance(got, np.ndarray)
    assert got[-1] == 2.0


def test_a_body_that_does_not_have_the_expected_leaves_is_refused_by_name() -> None:
    data = codec.encode(Shareable({"w": np.zeros((10, 64), np.float32)}))
    with pytest.raises(SpecError, match=r"path w; expected float32\[10,32\]; got float32\[10,64\]"):
        codec.decode(data, Spec.of({"w": np.zeros((10, 32), np.float32)}))


@pytest.mark.parametrize(
    "body",
    [
        {"x": np.zeros(1, np.complex64)},
        {"x": np.array(["text"])},
        {"x": np.array([object()])},
        {"x": [1.0]},
        {"a/b": np.zeros(1)},
        {"": np.zeros(1)},
        {"n" * 257: np.zeros(1)},
        {"__metadata__": np.zeros(1)},
        {"line\nbreak": np.zeros(1)},
        {"\ud800": np.zeros(1)},
    ],
)
def test_what_the_format_cannot_hold_is_refused_when_it_is_written(body: Any) -> None:
    with pytest.raises(SpecError):
        codec.encode(Shareable(body))


@pytest.mark.parametrize("headers", [{"x": None}, {"x": [1]}, {"x": np.float32(1)}, {"x": "y" * (1 << 20)}, {"x": "\ud800"}])
def test_a_header_that_is_no_plain_scalar_or_too_large_is_refused(headers: Any) -> None:
    with pytest.raises(SpecError):
        codec.encode(Shareable(headers=headers))


def test_more_leaves_than_the_limit_are_refused_at_both_ends() -> None:
    with pytest.raises(SpecError, match="too many leaves"):
        codec.encode(Shareable({str(n): np.zeros(0) for n in range(20_001)}))
    with pytest.raises(SpecError, match="too many leaves"):
        codec.decode(buffer(b"{" + b",".join(b'"%d":{}' % n for n in range(20_002)) + b"}"))


HOSTILE = {
    "empty": b"",
    "cut in the length": b"\x01\x00",
    "length over the cap": struct.pack("<Q", 1 << 63) + b"{}",
    "length over the buffer": struct.pack("<Q", 100) + b"{}",
    "no JSON": buffer(b"{'a'"),
    "no UTF-8": buffer(b'{"\xff": 1}'),
    "not an object": buffer([1]),
    "deep JSON": buffer(b"[" * 500_000),
    "long number": buffer(b'{"a":' + b"9" * 10_000 + b"}"),
    "duplicate key": buffer(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "duplicate field": buffer(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "hole": buffer({"a": entry(), "b": entry(at=(8, 12))}, bytes(12)),
    "overlap": buffer({"a": entry(), "b": entry(at=(2, 6))}, bytes(6)),
    "starts late": buffer({"a": entry(at=(4, 8))}, bytes(8)),
    "trailing bytes": buffer({"a": entry()}, bytes(5)),
    "truncated body": buffer({"a": entry()}, bytes(3)),
    "shape and span differ": buffer({"a": entry(shape=(2,))}, bytes(4)),
    "shape wraps around": buffer({"a": entry(shape=(1 << 32, 1 << 32, 1))}, bytes(4)),
    "shape over int64": buffer({"a": entry(shape=(1 << 70,))}, bytes(4)),
    "empty but vast": buffer({"a": entry(shape=(1 << 62, 1 << 62, 0), at=(0, 0))}),
    "negative": buffer({"a": entry(shape=(-1,))}, bytes(4)),
    "fraction": buffer({"a": entry(shape=(1.5,))}, bytes(4)),
    "many dimensions": buffer({"a": entry(shape=[1] * 33)}, bytes(4)),
    "object dtype": buffer({"a": entry("O")}, bytes(4)),
    "unknown field": buffer({"a": {**entry(), "class": "os.system"}}, bytes(4)),
    "metadata of another shape": buffer({"__metadata__": {"a": 1}}),
    "metadata not ours": buffer({"__metadata__": {"format": "pt"}}),
    "bad envelope": buffer({"__metadata__": {"hansa": '{"headers":{"a":[1]}}'}}),
    "surrogate in the envelope": buffer(b'{"__metadata__":{"hansa":"\\ud800"}}'),
    "surrogate in a name": buffer(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "long name": buffer({"n" * 257: entry()}, bytes(4)),
    "a leaf and a branch": buffer({"a": entry(), "a/b": entry(at=(4, 8))}, bytes(8)),
    "an empty part": buffer({"a//b": entry()}, bytes(4)),
    "a boolean of 2": buffer({"a": entry("BOOL", at=(0, 1))}, b"\x02"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_buffer_is_refused(data: bytes) -> None:
    with pytest.raises(SpecError):
        codec.decode(data)


def test_a_header_bomb_is_refused_before_it_is_parsed() -> None:
    text = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(30_000)) + b"}"
    start = time.process_time()
    with pytest.raises(SpecError, match="length"):
        codec.decode(buffer(text))
    assert time.process_time() - start < 0.05


def test_a_model_file_is_a_function_of_the_weights_alone(tmp_path: Path) -> None:
    shuffled: Tree = {"head": {"steps": STEPS, "bias": BIAS}, "1.weight": WEIGHT}
    tensors.save_tree(tmp_path / "a.safetensors", MODEL)
    tensors.save_tree(tmp_path / "b.safetensors", shuffled)
    data = (tmp_path / "a.safetensors").read_bytes()
    assert data == (tmp_path / "b.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == codec.digest(MODEL)
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert list(header) == ["1.weight", "head/bias", "head/steps"]
    assert tensors.load_tree(tmp_path / "a.safetensors")[1] == {}


def test_a_model_of_one_dtype_has_the_bytes_that_the_safetensors_library_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    tree = {"b": np.ones((2, 3), np.float32), "a": np.zeros(3, np.float32)}
    tensors.save_tree(tmp_path / "m.safetensors", tree)
    assert (tmp_path / "m.safetensors").read_bytes() == library.save(tree)


def test_torch_reads_a_model_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    tree: Tree = {**MODEL, "half": np.ones(3, ml_dtypes.bfloat16), "mask": np.array([True, False, True])}
    tensors.save_tree(tmp_path / "m.safetensors", tree)
    state = load_file(tmp_path / "m.safetensors")
    assert sorted(state) == ["1.weight", "half", "head/bias", "head/steps", "mask"]
    assert torch.equal(state["1.weight"], torch.arange(6.0).reshape(2, 3))
    assert state["half"].dtype == torch.bfloat16
    assert int(state["head/steps"]) == 7


def test_a_sealed_file_gives_its_metadata_back_and_notices_each_flipped_bit_of_content(tmp_path: Path) -> None:
    path = tmp_path / "round-3.safetensors"
    tree: Tree = {"w": np.arange(4.0), "momentum": {}}
    tensors.save_tree(path, tree, {"round": "3"})
    got, metadata = tensors.load_tree(path, sealed=True)
    assert metadata == {"round": "3"}
    assert got["momentum"] == {}
    data = path.read_bytes()
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            tensors.load_tree(path, sealed=True)


def test_a_truncated_file_is_refused_and_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors.save_tree(path, MODEL)
    data = path.read_bytes()
    for size in range(0, len(data), 16):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            tensors.load_tree(path)


def test_a_loaded_tree_can_be_written_to(tmp_path: Path) -> None:
    tensors.save_tree(tmp_path / "m", {"w": np.zeros(2)})
    tensors.load_tree(tmp_path / "m")[0]["w"][0] = 1.0


def test_a_file_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        tensors.load_tree(tmp_path / "none")


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    tensors.save_tree(path, {"w": np.zeros(2)})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"the disk is full; at path .*m\.safetensors; expected room for 8,\d+ bytes"):
        tensors.save_tree(path, {"w": np.zeros(1000)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
