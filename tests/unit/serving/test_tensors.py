"""The Open Inference Protocol: what is read, what is refused, what is answered."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from evenkeel.libs.errors import Refused
from evenkeel.services.serving.domain.dataplane import Answer
from evenkeel.services.serving.domain.tensors import Infer, metadata, parse_infer, written_infer
from tests.unit.serving.test_champions import champion

NAMES = ("a", "b", "c")
INDEX = {name: position for position, name in enumerate(NAMES)}


def tensor(
    data: Any, shape: Any = (1, 3), name: Any = "features", datatype: Any = "FP32", **more: Any
) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": data} | more


def read(*inputs: dict[str, Any], raw: bytes = b"", **more: Any) -> Infer:
    return parse_infer({"inputs": list(inputs)} | more, memoryview(raw), NAMES, INDEX)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT64", "INT8", "UINT16"])
@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_one_tensor_flat_or_nested(data: Any, datatype: str) -> None:
    found = read(tensor(data, (2, 3), datatype=datatype))
    assert found.rows.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (found.id, found.outputs, found.binary, found.event_id) == (None, (), frozenset(), None)


def test_null_is_missing() -> None:
    rows = read(tensor([1, None, 3.5])).rows
    assert rows[0][0] == 1
    assert math.isnan(rows[0][1])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_tensor_per_feature_in_any_order(shape: Any) -> None:
    found = read(tensor([5, 6], shape, "c"), tensor([True, False], shape, "a", "BOOL"), tensor([3, None], shape, "b"))
    assert found.rows[0].tolist() == [1, 3, 5]
    assert found.rows[1][0] == 0
    assert math.isnan(found.rows[1][1])


def test_id_event_id_and_outputs() -> None:
    found = read(
        tensor([1, 2, 3]),
        id="r1",
        parameters={"event_id": "e1", "content_type": "np"},
        outputs=[{"name": "score"}, {"name": "prediction_id", "parameters": {"binary_data": True}}],
    )
    assert (found.id, found.event_id, found.outputs) == ("r1", "e1", ("score", "prediction_id"))
    assert found.binary == {"prediction_id"}


def test_binary_tensors_follow_the_json() -> None:
    first, second = np.array([1, np.nan], "<f4"), np.array([3, 4], "<f8")
    third = np.array([1, 0], "?")
    inputs = [
        {"name": name, "shape": [2, 1], "datatype": kind, "parameters": {"binary_data_size": data.nbytes}}
        for name, kind, data in (("a", "FP32", first), ("c", "FP64", second), ("b", "BOOL", third))
    ]
    raw = first.tobytes() + second.tobytes() + third.tobytes()
    found = read(*inputs, raw=raw, parameters={"binary_data_output": True})
    assert found.rows[0].tolist() == [1, 1, 3]
    assert math.isnan(found.rows[1][0])
    assert found.binary == {"score", "decision", "prediction_id"}


def binary(size: Any, **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}} | more


@pytest.mark.parametrize(
    ("inputs", "raw", "text"),
    [
        (None, b"", "inputs is None"),
        ([], b"", "inputs is []"),
        ({}, b"", "inputs is {}"),
        ([7], b"", "inputs[0] is 7"),
        ([tensor([1, 2, 3], name=None)], b"", "inputs[0].name is None"),
        ([tensor([1, 2, 3]) | {"shape": "1,3"}], b"", "inputs[0].shape is '1,3'"),
        ([tensor([1, 2, 3], (-1, 3))], b"", "inputs[0].shape is [-1, 3]"),
        ([tensor([1, 2, 3], (1, True))], b"", "inputs[0].shape"),
        ([tensor([1, 2, 3], (1, 2**31))], b"", "inputs[0].shape"),
        ([tensor(["x"], (1, 1), datatype="BYTES")], b"", "inputs[0].datatype is 'BYTES'"),
        ([tensor([1, 2, 3], datatype=["FP32"])], b"", "inputs[0].datatype"),
        ([tensor("1,2,3")], b"", "inputs[0].data is '1,2,3'"),
        ([tensor(["1", 2, 3])], b"", "inputs[0].data holds '1'"),
        ([tensor([{}, None, 3])], b"", "inputs[0].data holds {}"),
        ([tensor([[1, 2], [3]])], b"", "nested unevenly"),
        ([tensor([1, 2])], b"", "inputs[0].data has shape [2], not [1, 3]"),
        ([tensor([[1], [2], [3]])], b"", "inputs[0].data has shape [3, 1], not [1, 3]"),
        ([tensor([1, 2], (1, 2))], b"", "inputs[0].shape is [1, 2], the model takes 3 features"),
        ([tensor([1, 2, 3], (3,))], b"", "no feature 'features'"),
        ([tensor([], (0, 3))], b"", "no rows"),
        ([tensor([1, 2, 3e38 * 2])], b"", "c of row 0 is 6e+38"),
        ([tensor([1, -(10**400), 3])], b"", "inputs[0].data"),  # orjson never gives one
        ([tensor([1], (1,), "a"), tensor([2], (1,), "b")], b"", "'c' is missing"),
        ([tensor([1], (1,), "a"), tensor([2], (1,), "x")], b"", "no feature 'x'"),
        ([tensor([1], (1,), "a"), tensor([2], (1,), "a")], b"", "a is there twice"),
        ([tensor([1], (1,), "a"), tensor([2, 2], (2,), "b")], b"", "b has shape [2]"),
        ([tensor([1], (1,), "a"), tensor([2, 2], (1, 2), "b")], b"", "b has shape [1, 2]"),
        ([tensor([1, 2, 3], parameters=[])], b"", "inputs[0].parameters is []"),
        ([binary(12)], b"\0" * 8, "inputs[0] has 12 bytes, but 8 are left"),
        ([binary(12)], b"\0" * 16, "4 bytes of the body belong to no tensor"),
        ([binary(8)], b"\0" * 8, "binary_data_size is 8"),
        ([binary("12")], b"\0" * 12, "binary_data_size is '12'"),
        ([binary(12, data=[1, 2, 3])], b"\0" * 12, "data and binary_data_size"),
        ([binary(12)], np.array([1, 2, np.inf], "<f4").tobytes(), "c of row 0 is inf"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(inputs: Any, raw: bytes, text: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_infer({"inputs": inputs}, memoryview(raw), NAMES, INDEX)
    assert refusal.value.status == 400
    assert text in refusal.value.detail
    assert refusal.value.fix


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"id": 7}, "id is 7"),
        ({"parameters": 7}, "parameters is 7"),
        ({"parameters": {"event_id": ""}}, "parameters.event_id is ''"),
        ({"outputs": {}}, "outputs is {}"),
        ({"outputs": [{"name": "label"}]}, "no output 'label'"),
        ({"outputs": ["score"]}, "no output None"),
        ({"outputs": [{"name": "score", "parameters": 1}]}, "outputs[0].parameters is 1"),
    ],
)
def test_the_rest_of_a_request_is_checked_too(more: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as refusal:
        read(tensor([1, 2, 3]), **more)
    assert text in refusal.value.detail


def test_one_event_id_is_for_one_row() -> None:
    with pytest.raises(Refused, match="for 2 rows"):
        read(tensor([1] * 6, (2, 3)), parameters={"event_id": "e"})


DECIDES = replace(champion(4), threshold=0.5)
ANSWERS, IDS = [Answer(0.25, False), Answer(0.75, True)], [("p1", "e"), ("p22", "f")]


def test_an_answer_echoes_the_id_and_has_all_outputs() -> None:
    content, json_size = written_infer(DECIDES, read(tensor([1, 2, 3]), id="r1"), ANSWERS, IDS)
    assert json_size is None
    assert orjson.loads(content) == {
        "model_name": "m",
        "model_version": "4",
        "parameters": {"epoch": 4},
        "id": "r1",
        "outputs": [
            {"name": "score", "datatype": "FP64", "shape": [2], "data": [0.25, 0.75]},
            {"name": "decision", "datatype": "BOOL", "shape": [2], "data": [False, True]},
            {"name": "prediction_id", "datatype": "BYTES", "shape": [2], "data": ["p1", "p22"]},
        ],
    }


def test_only_the_outputs_asked_for_and_only_those_there_are() -> None:
    request = read(tensor([1, 2, 3]), outputs=[{"name": "decision"}, {"name": "score"}])
    content, _ = written_infer(DECIDES, request, ANSWERS, IDS)
    assert [output["name"] for output in orjson.loads(content)["outputs"]] == ["decision", "score"]
    content, _ = written_infer(champion(4), read(tensor([1, 2, 3])), [Answer(1.5, None)], IDS[:1])
    assert [output["name"] for output in orjson.loads(content)["outputs"]] == ["score", "prediction_id"]
    assert "id" not in orjson.loads(content)


def test_binary_outputs_follow_the_json() -> None:
    content, json_size = written_infer(
        DECIDES, read(tensor([1, 2, 3]), parameters={"binary_data_output": True}), ANSWERS, IDS
    )
    assert json_size is not None
    head = orjson.loads(content[:json_size])
    assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [16, 2, 13]
    tail = content[json_size:]
    assert np.frombuffer(tail[:16], "<f8").tolist() == [0.25, 0.75]
    assert tail[16:18] == b"\0\1"
    assert tail[18:] == b"\2\0\0\0p1\3\0\0\0p22"


def test_metadata_names_inputs_and_outputs() -> None:
    found = metadata("m", 3, NAMES, is_decided=True)
    assert (found.name, found.versions, found.inputs[0].shape) == ("m", ["3"], [-1, 3])
    assert [output.name for output in found.outputs] == ["score", "decision", "prediction_id"]
    assert metadata("m", None, NAMES, is_decided=False).versions == []
