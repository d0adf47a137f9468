"""Tensor files: only tensors, exactly those expected, and nothing else that a file could carry."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance.protocol.errors import Code, TensorFileError
from appliance.protocol.tensors import (
    DTYPES,
    MAX_HEADER_BYTES,
    MAX_NAME,
    TensorFile,
    TensorSpec,
    require_finite,
    tensor_bytes,
    tensor_header,
    write_tensors,
)
from tests.memory import HighWater

WEIGHTS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7)}
SPECS = {"weight": TensorSpec((2, 3), "float32"), "count": TensorSpec((), "int64")}


def handmade(path: Path, header: bytes | dict[str, Any], content: bytes = b"", *, pad: bool = True) -> Path:
    """A file as somebody with a library of his own would write it."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8) if pad else b""
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def entry(shape: list[Any], end: int, dtype: str = "F32", **more: Any) -> dict[str, Any]:
    """One tensor's entry in the header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end], **more}


def refusal(path: Path) -> TensorFileError:
    """The error with which the file is refused."""
    with pytest.raises(TensorFileError) as caught:
        TensorFile(path)
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> TensorFile:
    """The file of WEIGHTS."""
    write_tensors(WEIGHTS, tmp_path / "w")
    return TensorFile(tmp_path / "w")


# What is taken


def test_tensors_survive_the_way(file: TensorFile) -> None:
    """Bit by bit, with their shapes; a scalar stays a scalar, or batch norm's counter would not load."""
    for name, array in WEIGHTS.items():
        assert file[name].tobytes() == array.tobytes()
        assert file[name].shape == array.shape
    assert file.specs == SPECS


@given(
    st.dictionaries(
        st.text(max_size=20),
        hnp.arrays(st.sampled_from(sorted(DTYPES)), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
        max_size=4,
    )
)
def test_any_tensors_survive_the_way(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]) -> None:
    """Names of any letters, shapes with zeros, every type that we take."""
    path = tmp_path_factory.getbasetemp() / "any"
    write_tensors(tensors, path)
    read = TensorFile(path)

    assert {name: read[name].tobytes() for name in read} == {name: a.tobytes() for name, a in tensors.items()}
    assert {name: spec.shape for name, spec in read.specs.items()} == {name: a.shape for name, a in tensors.items()}


@pytest.mark.parametrize(
    "array",
    [WEIGHTS["weight"].T, WEIGHTS["weight"][:, ::2], np.asfortranarray(WEIGHTS["weight"]), np.arange(3, dtype=">f4")],
    ids=["transposed", "every second", "by columns", "big-endian"],
)
def test_an_array_in_any_layout_is_written_by_its_values(tmp_path: Path, array: Any) -> None:
    """The file knows one layout; numpy knows many."""
    write_tensors({"a": array}, tmp_path / "a")

    assert np.array_equal(TensorFile(tmp_path / "a")["a"], array)


def test_bytes_and_file_are_the_same(tmp_path: Path) -> None:
    """Hashes of one and the other must agree."""
    write_tensors(WEIGHTS, tmp_path / "w")

    assert tensor_bytes(WEIGHTS) == (tmp_path / "w").read_bytes()


def test_an_empty_model_is_a_file(tmp_path: Path) -> None:
    """No tensors is an answer."""
    write_tensors({}, tmp_path / "none")

    assert list(TensorFile(tmp_path / "none")) == []


@pytest.mark.parametrize("dtype", ["float16", "complex64", "object", "uint64", "<U3"])
def test_other_types_are_not_written(dtype: str) -> None:
    """Objects would need pickle; the rest nobody adds up."""
    with pytest.raises(TensorFileError, match="allowed"):
        tensor_bytes({"a": np.zeros(2, dtype)})


# What is refused


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00" * 7, b"\x00" * 8, b"\xff" * 8, b"\xff" * 100, b"\x80\x04\x95pickle", b"PK\x03\x04" + b"\x00" * 50],
    ids=["empty", "short", "no header", "huge length", "noise", "pickle", "zip"],
)
def test_what_is_no_tensor_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    """It comes from a runner that ran foreign code, or over the network."""
    (tmp_path / "x").write_bytes(raw)

    assert refusal(tmp_path / "x").code is Code.PARAMETERS_INVALID


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_a_refusal(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """The warden reads such files itself, and must not fall over."""
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(raw)

    assert refusal(path).code is Code.PARAMETERS_INVALID


@pytest.mark.parametrize("header", [b"[]", b"null", b"{", b'{"a":5}', b'{"a":[]}', b'{"a":{}}', b"[" * 50_000, b"\xff"])
def test_a_header_of_another_form_is_refused(tmp_path: Path, header: bytes) -> None:
    """JSON, but not a description of tensors."""
    assert refusal(handmade(tmp_path / "x", header)).code is Code.PARAMETERS_INVALID


@pytest.mark.parametrize(
    "tensor",
    [
        entry([2], 4),
        entry([2], 12),
        entry([2], 10**18),
        entry([2**40, 2**40], 8),
        entry([-1], 4),
        entry([1.0], 4),
        entry(["1"], 4),
        entry([1], 4, "F99"),
        {**entry([1], 4), "data_offsets": [4, 0]},
        {**entry([1], 4), "data_offsets": [-4, 0]},
        {**entry([1], 4), "data_offsets": [4, 8]},
    ],
    ids=lambda tensor: f"{tensor['shape']} {tensor['data_offsets']} {tensor['dtype']}",
)
def test_a_tensor_that_does_not_fit_its_bytes_is_refused(tmp_path: Path, tensor: dict[str, Any]) -> None:
    """Overlaps, holes and overflows are how files attack readers."""
    assert refusal(handmade(tmp_path / "x", {"a": tensor}, b"\x00" * 8)).code is Code.PARAMETERS_INVALID


@pytest.mark.parametrize("dtype", ["F16", "BF16", "I8", "U16", "I16", "U32", "U64", "F8_E4M3"])
def test_a_type_that_we_do_not_take_is_refused(tmp_path: Path, dtype: str) -> None:
    """The format knows more types than our arithmetic."""
    assert refusal(handmade(tmp_path / "x", {"a": entry([0], 0, dtype)})).code is Code.PARAMETERS_INVALID


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """A full disk, a broken line."""
    raw = tensor_bytes(WEIGHTS)

    for size in range(len(raw)):
        (tmp_path / "cut").write_bytes(raw[:size])
        assert refusal(tmp_path / "cut").code is Code.PARAMETERS_INVALID


@pytest.mark.parametrize("path", ["missing", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, path: str) -> None:
    """As a refusal with a code, not as a traceback."""
    assert refusal(tmp_path / path).code is Code.PARAMETERS_INVALID


# What a file could carry besides its tensors


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": {"note": "Mueller, born 1961"}, "a": entry([1], 4)},
        {"__metadata__": {}, "a": entry([1], 4)},
        {"__metadata__": {"dtype": "F32", "shape": "", "data_offsets": "0 Mueller"}, "a": entry([1], 4)},
        {"__metadata__": {"dtype": "Mueller", "shape": "x", "data_offsets": "0"}, "a": entry([1], 4)},
        {"a": entry([1], 4, note="Mueller, born 1961")},
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]} \t \t\t }',
        b'{"\\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b' {"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
    ids=[
        "metadata",
        "empty metadata",
        "as a tensor",
        "as a type",
        "field",
        "twice",
        "field twice",
        "blanks",
        "escapes",
        "leading blank",
    ],
)
def test_a_header_with_room_for_a_message_is_refused(tmp_path: Path, header: bytes | dict[str, Any]) -> None:
    """Readers ignore it, so every check of the tensors would pass, and a record would leave the hospital."""
    error = refusal(handmade(tmp_path / "x", header, b"\x00" * 4))

    assert error.code is Code.PARAMETERS_INVALID
    assert "Mueller" not in error.message


@pytest.mark.parametrize(
    "odd",
    [
        {"dtype": "Mueller", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": "Mueller"},
        {"dtype": "F32", "shape": [1], "data_offsets": []},
    ],
)
def test_an_entry_of_other_types_is_refused_without_its_words(tmp_path: Path, odd: dict[str, Any]) -> None:
    """The refusal goes to the researcher, and is one that every receiver expects."""
    assert "Mueller" not in refusal(handmade(tmp_path / "x", {"a": odd}, b"\x00" * 4)).message


def test_a_header_with_long_padding_is_refused(tmp_path: Path) -> None:
    """Its length would be a message too."""
    assert (
        refusal(handmade(tmp_path / "x", json.dumps({"a": entry([1], 4)}).encode() + b" " * 800, b"\x00" * 4)).code
        is Code.PARAMETERS_INVALID
    )


def test_bytes_behind_the_last_tensor_are_refused(tmp_path: Path) -> None:
    """Nothing rides along."""
    (tmp_path / "x").write_bytes(tensor_bytes(WEIGHTS) + b"Mueller")

    assert refusal(tmp_path / "x").code is Code.PARAMETERS_INVALID


def test_a_header_above_the_limit_is_not_read(tmp_path: Path) -> None:
    """Memory is bounded before anything is parsed."""
    (tmp_path / "x").write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))

    assert "header" in refusal(tmp_path / "x").message


def test_an_over_long_name_is_refused(tmp_path: Path) -> None:
    """No layer is called that."""
    assert (
        refusal(handmade(tmp_path / "x", {"n" * (MAX_NAME + 1): entry([1], 4)}, b"\x00" * 4)).code
        is Code.PARAMETERS_INVALID
    )


# What is expected


def has_passed(file: TensorFile, expected: dict[str, TensorSpec]) -> bool:
    """Whether the file is taken for these tensors."""
    try:
        file.require(expected)
    except TensorFileError:
        return False
    return True


def test_exactly_the_expected_tensors_pass(file: TensorFile) -> None:
    """Names, shapes and types of the global model, in whatever order."""
    turned = dict(reversed(SPECS.items()))

    assert [has_passed(file, expected) for expected in (SPECS, turned, {})] == [True, True, False]


def test_a_missing_tensor_is_named(file: TensorFile) -> None:
    """The researcher knows this name: it is the model's own."""
    with pytest.raises(TensorFileError, match="'bias' is missing"):
        file.require({**SPECS, "bias": TensorSpec((3,), "float32")})


def test_an_extra_tensor_is_counted_and_not_named(tmp_path: Path) -> None:
    """A name that plan code chose could carry a record."""
    write_tensors({**WEIGHTS, "Mueller, born 1961": np.zeros(1)}, tmp_path / "w")

    with pytest.raises(TensorFileError, match="1 tensors") as caught:
        TensorFile(tmp_path / "w").require(SPECS)
    assert "Mueller" not in caught.value.message


@pytest.mark.parametrize(
    "spec", [TensorSpec((3, 2), "float32"), TensorSpec((2, 3), "float64"), TensorSpec((6,), "float32")]
)
def test_another_shape_or_type_is_refused(file: TensorFile, spec: TensorSpec) -> None:
    """Adding it up would spread it over the model."""
    with pytest.raises(TensorFileError, match="'weight' is not"):
        file.require({**SPECS, "weight": spec})


def test_a_wrong_shape_is_not_repeated(tmp_path: Path) -> None:
    """With a zero in it a shape may hold any numbers: [0, 77, 117, 101] spells a name."""
    write_tensors({**WEIGHTS, "weight": np.zeros((0, 77, 117, 101), np.float32)}, tmp_path / "w")

    with pytest.raises(TensorFileError) as caught:
        TensorFile(tmp_path / "w").require(SPECS)
    assert "117" not in caught.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, value: float, dtype: type) -> None:
    """One NaN would end every hospital's model."""
    write_tensors({"a": np.array([0, value, 1], dtype)}, tmp_path / "a")

    with pytest.raises(TensorFileError, match="not finite"):
        require_finite(TensorFile(tmp_path / "a"), maximum=10)


@pytest.mark.parametrize("value", [10.5, -10.5])
def test_a_value_beyond_the_bound_is_refused(tmp_path: Path, value: float) -> None:
    """Large values are the simplest way to take a model over, and to write text into it."""
    write_tensors({"a": np.array([0, value])}, tmp_path / "a")

    with pytest.raises(TensorFileError, match="beyond 10"):
        require_finite(TensorFile(tmp_path / "a"), maximum=10)


def test_finite_values_pass(tmp_path: Path) -> None:
    """Also at the bound itself, in integers, and in nothing."""
    write_tensors({"a": np.array([-10.0, 10.0]), "n": np.array(10**9), "none": np.zeros((0, 3))}, tmp_path / "a")

    assert require_finite(TensorFile(tmp_path / "a"), maximum=10) == pytest.approx(200**0.5)


def test_looking_at_every_value_keeps_memory_flat(tmp_path: Path) -> None:
    """The egress guard runs in the warden, however large a tensor is; the norm comes with the same look."""
    size = 32 << 20
    header, _ = tensor_header({"a": TensorSpec((size,), "float32")})
    with (tmp_path / "a").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 4 * size)
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(3).tobytes())
    high = HighWater()

    assert require_finite(TensorFile(tmp_path / "a"), maximum=10) == 3
    assert high.rise() < 32 << 20


def test_a_file_that_is_cut_short_under_its_reader_is_an_error(tmp_path: Path) -> None:
    """A mapped one would end the process with a signal."""
    write_tensors(WEIGHTS, tmp_path / "w")
    file = TensorFile(tmp_path / "w")
    os.truncate(tmp_path / "w", 100)

    with pytest.raises(TensorFileError, match="cut short"):
        dict(file)


def test_a_tensor_and_its_namesake_behind_the_prefix_are_two(tmp_path: Path) -> None:
    """The aggregator's tensors bear the model's names: SCAFFOLD's nodes must not take the model for its variate."""
    path = tmp_path / "f.safetensors"
    write_tensors({"aggregator/w": np.float32([1, 2]), "w": np.float32([3, 4])}, path)
    rest, found = TensorFile(path).split("aggregator/")

    assert (rest["w"].tolist(), found["w"].tolist()) == ([3, 4], [1, 2])


@pytest.fixture
def mixed(tmp_path: Path) -> TensorFile:
    """A model of which one layer is frozen."""
    write_tensors({"head": np.arange(3.0), "frozen/base": np.arange(2.0)}, tmp_path / "mixed")
    return TensorFile(tmp_path / "mixed")


def test_a_part_of_a_file_is_read_from_the_file(mixed: TensorFile) -> None:
    """By its own names, without a copy of the rest."""
    rest, found = mixed.split("frozen/")

    assert (list(rest), list(found), list(mixed.without(["head"]))) == (["head"], ["base"], ["frozen/base"])
    assert found.part("base", 1, 2) == [1.0]


def test_the_whole_model_is_read_under_its_own_names(mixed: TensorFile) -> None:
    """What travelled under a prefix is a layer like any other."""
    whole = mixed.unprefixed("frozen/")

    assert {name: whole[name].tolist() for name in whole} == {"head": [0, 1, 2], "base": [0, 1]}


def test_one_tensor_cannot_come_twice(tmp_path: Path) -> None:
    """The one that is used and the one that is checked could be two."""
    write_tensors({"base": np.zeros(1), "frozen/base": np.ones(1)}, tmp_path / "twice")

    with pytest.raises(TensorFileError, match="twice"):
        TensorFile(tmp_path / "twice").unprefixed("frozen/")
