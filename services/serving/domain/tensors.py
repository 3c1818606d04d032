"""The Open Inference Protocol v2 (KServe, Triton), JSON and the binary tensor extension: tensors in, tensors out.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; Triton, extension_binary_data.md.
A model takes either one tensor of shape [n, k], or one tensor per feature of shape [n] or [n, 1]. JSON null, and NaN in
binary tensors, is a missing value; JSON has no NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from evenkeel.contracts.http.serving import ModelMetadata, ModelParameters, TensorMetadata
from evenkeel.libs.fields import shown
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.dataplane import Answer, Question
from evenkeel.services.serving.domain.requests import LARGEST, Row, nearest, record_id, refused

INPUT: Final = "features"
OUTPUTS: Final = ("score", "decision", "prediction_id")
_DATATYPES: Final = {
    "FP64": "<f8",
    "FP32": "<f4",
    "FP16": "<f2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "<i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "<u1",
    "BOOL": "?",
}
_MAX_DIMENSION: Final = 2**31


@dataclass(frozen=True, slots=True)
class Infer:
    """A request that fits its model: float64[n, k] in the order of the schema, NaN for missing."""

    id: str | None
    rows: NDArray[np.float64]
    event_id: str | None
    outputs: tuple[str, ...]
    binary: frozenset[str]
    """Outputs wanted as raw bytes."""

    def question(self) -> Question:
        values: list[Row] = [[None if value != value else value for value in row] for row in self.rows.tolist()]
        return Question(values, self.rows.astype(np.float32), self.event_id)


def parse_infer(body: Mapping[str, Any], raw: memoryview, names: Sequence[str], index: Mapping[str, int]) -> Infer:
    """Read a request's JSON and the tensors behind it; raises Refused naming the tensor and the fix."""
    inputs = body.get("inputs")
    if type(inputs) is not list or not inputs:
        raise refused(400, f"inputs is {shown(inputs)}.", "Send inputs as a list of one or more tensors.", "inputs")
    request_id = body.get("id")
    if request_id is not None and type(request_id) is not str:
        raise refused(400, f"id is {shown(request_id)}.", "Send id as text, or leave it out.", "id")
    parameters = _object(body.get("parameters"), "parameters")
    read = _Raw(raw)
    tensors = [_tensor(one, number, read) for number, one in enumerate(inputs)]
    read.finish()
    rows = _assemble(tensors, names, index)
    beyond = np.abs(rows) >= LARGEST  # NaN is not
    if beyond.any():
        row, column = (int(at[0]) for at in np.nonzero(beyond))
        fix = "Send finite numbers that a float32 can hold; null, or NaN in a binary tensor, is a missing value."
        raise refused(400, f"{names[column]} of row {row} is {rows[row, column]}.", fix, f"inputs.{names[column]}")
    event_id = parameters.get("event_id")
    if event_id is not None:
        record_id(event_id, "parameters.event_id")
        if len(rows) != 1:
            fix = "Send one row, or leave parameters.event_id out."
            raise refused(400, f"One event_id is given for {len(rows)} rows.", fix, "parameters.event_id")
    outputs, binary = _outputs(body.get("outputs"), parameters.get("binary_data_output") is True)
    return Infer(request_id, rows, event_id, outputs, binary)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    where: str
    values: NDArray[np.float64]


class _Raw:
    """The bytes behind the JSON, handed out in order."""

    def __init__(self, raw: memoryview) -> None:
        self._raw, self._at = raw, 0

    def take(self, size: int, where: str) -> memoryview:
        if self._at + size > len(self._raw):
            left = len(self._raw) - self._at
            fix = "Send the tensors' bytes behind the JSON, in the order of inputs."
            raise refused(400, f"{where} has {size} bytes, but {left} are left in the body.", fix, where)
        self._at += size
        return self._raw[self._at - size : self._at]

    def finish(self) -> None:
        if self._at != len(self._raw):
            left = len(self._raw) - self._at
            fix = "Give every binary tensor its binary_data_size, and Inference-Header-Content-Length the JSON's size."
            raise refused(400, f"{left} bytes of the body belong to no tensor.", fix, "inputs")


def _object(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise refused(400, f"{where} is {shown(value)}.", f"Send {where} as an object, or leave it out.", where)
    return value


def _tensor(one: object, number: int, raw: _Raw) -> _Tensor:
    where = f"inputs[{number}]"
    if type(one) is not dict:
        raise refused(400, f"{where} is {shown(one)}.", "Send each input as an object.", where)
    name = one.get("name")
    if type(name) is not str:
        raise refused(400, f"{where}.name is {shown(name)}.", "Send the tensor's name as text.", f"{where}.name")
    shape = one.get("shape")
    if type(shape) is not list or not all(type(n) is int and 0 <= n < _MAX_DIMENSION for n in shape):
        fix = "Send shape as a list of whole numbers, such as [1, 20]."
        raise refused(400, f"{where}.shape is {shown(shape)}.", fix, f"{where}.shape")
    datatype = one.get("datatype")
    if type(datatype) is not str or datatype not in _DATATYPES:
        fix = f"Send numbers, as one of {', '.join(_DATATYPES)}."
        raise refused(400, f"{where}.datatype is {shown(datatype)}.", fix, f"{where}.datatype")
    size = _object(one.get("parameters"), f"{where}.parameters").get("binary_data_size")
    if size is None:
        values = _from_json(one.get("data"), shape, where)
    elif "data" in one:
        raise refused(400, f"{where} has data and binary_data_size.", "Send one of them.", f"{where}.data")
    else:
        values = _from_bytes(size, datatype, shape, where, raw)
    return _Tensor(name, where, values)


def _from_bytes(size: object, datatype: str, shape: Sequence[int], where: str, raw: _Raw) -> NDArray[np.float64]:
    dtype = np.dtype(_DATATYPES[datatype])
    expected = dtype.itemsize * _product(shape)
    if type(size) is not int or size != expected:
        field = f"{where}.parameters.binary_data_size"
        fix = f"Send {expected}: shape {list(shape)} of {datatype}."
        raise refused(400, f"{field} is {shown(size)}.", fix, field)
    return np.frombuffer(raw.take(size, where), dtype).astype(np.float64).reshape(shape)


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _from_json(data: object, shape: list[int], where: str) -> NDArray[np.float64]:
    if type(data) is not list:
        raise refused(400, f"{where}.data is {shown(data)}.", "Send data as a list of numbers.", f"{where}.data")
    try:
        found = np.array(data)
        if found.dtype.kind == "O":
            _refuse_all_but_numbers(data, where)
            found = np.array(data, np.float64)
    except (ValueError, TypeError, OverflowError):  # ragged lists, endless integers
        found = np.array("")
    if found.dtype.kind not in "iufb":
        _refuse_all_but_numbers(data, where)
        raise refused(400, f"{where}.data is nested unevenly.", "Send rows of equal length.", f"{where}.data")
    if found.size != _product(shape) or (found.ndim > 1 and list(found.shape) != shape):
        fix = f"Send {_product(shape)} numbers, flat or nested, or correct the shape."
        raise refused(400, f"{where}.data has shape {list(found.shape)}, not {shape}.", fix, f"{where}.data")
    return found.astype(np.float64).reshape(shape)


def _refuse_all_but_numbers(data: list[Any], where: str) -> None:
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        if type(value) is list:
            waiting.extend(value)
        elif value is not None and type(value) not in (int, float, bool):
            fix = "Send numbers, or null for a missing value. Texts are taken by /v1/models/{model}/predict."
            raise refused(400, f"{where}.data holds {shown(value)}.", fix, f"{where}.data")


def _assemble(tensors: Sequence[_Tensor], names: Sequence[str], index: Mapping[str, int]) -> NDArray[np.float64]:
    first = tensors[0]
    width = len(names)
    if len(tensors) == 1 and (first.name not in index or width == 1) and first.values.ndim == 2:
        if first.values.shape[1] != width:
            fix = f"Send [n, {width}]: {', '.join(names[:20])}{', …' if width > 20 else ''}."
            shape = list(first.values.shape)
            raise refused(400, f"{first.where}.shape is {shape}, the model takes {width} features.", fix, first.where)
        return _not_empty(first.values, first.where)
    columns: dict[str, NDArray[np.float64]] = {}
    for tensor in tensors:
        if tensor.name not in index:
            fix = f"Send one tensor [n, {width}], or one per feature. {nearest(tensor.name, names)}"
            raise refused(400, f"There is no feature {shown(tensor.name)}.", fix, f"{tensor.where}.name")
        if tensor.name in columns:
            raise refused(400, f"{tensor.name} is there twice.", "Send each feature once.", f"{tensor.where}.name")
        sizes = tensor.values.shape
        if len(sizes) not in (1, 2) or (len(sizes) == 2 and sizes[1] != 1) or sizes[0] != len(first.values):
            fix = f"Send [{len(first.values)}] or [{len(first.values)}, 1], like the first feature."
            raise refused(400, f"{tensor.name} has shape {list(sizes)}.", fix, f"{tensor.where}.shape")
        columns[tensor.name] = tensor.values.reshape(-1)
    for name in names:
        if name not in columns:
            fix = "Send a tensor for each feature, with null where a value is not known."
            raise refused(400, f"The feature {name!r} is missing.", fix, f"inputs.{name}")
    return _not_empty(np.stack([columns[name] for name in names], axis=1), "inputs")


def _not_empty(rows: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    if not len(rows):
        raise refused(400, f"{where} has no rows.", "Send at least one.", where)
    return rows


def _outputs(wanted: object, all_binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    if wanted is None:
        return (), frozenset(OUTPUTS if all_binary else ())
    if type(wanted) is not list:
        raise refused(400, f"outputs is {shown(wanted)}.", "Send a list, or leave it out for all outputs.", "outputs")
    names: list[str] = []
    binary: set[str] = set()
    for number, one in enumerate(wanted):
        name = one.get("name") if type(one) is dict else None
        if name not in OUTPUTS:
            fix = f"Ask for {', '.join(OUTPUTS)}, or leave outputs out for all."
            raise refused(400, f"There is no output {shown(name)}.", fix, f"outputs[{number}].name")
        names.append(name)
        if _object(one.get("parameters"), f"outputs[{number}].parameters").get("binary_data", all_binary) is True:
            binary.add(name)
    return tuple(names), frozenset(binary)


_ENCODERS: Final[dict[str, tuple[Literal["FP64", "BOOL", "BYTES"], Callable[[Any], bytes]]]] = {
    "score": ("FP64", lambda data: np.array(data, "<f8").tobytes()),
    "decision": ("BOOL", lambda data: np.array(data, "?").tobytes()),
    "prediction_id": ("BYTES", lambda data: b"".join(len(b).to_bytes(4, "little") + b for b in map(str.encode, data))),
}


def written_infer(
    champion: Champion, request: Infer, answers: Sequence[Answer], ids: Sequence[tuple[str, str]]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the size of its JSON part if bytes follow it. `ids`: prediction id and event id."""
    head = {
        "model_name": champion.model,
        "model_version": str(champion.version),
        "parameters": {"epoch": champion.epoch},
    }
    found: dict[str, Sequence[Any]] = {
        "score": [answered.score for answered in answers],
        "prediction_id": [prediction_id for prediction_id, _ in ids],
    }
    if champion.threshold is not None:
        found["decision"] = [answered.decision for answered in answers]
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name in request.outputs or OUTPUTS:
        data = found.get(name)
        if data is None:
            continue  # a regression decides nothing
        datatype, encode = _ENCODERS[name]
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(data)]}
        if name in request.binary:
            tail.append(encode(data))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = data
        outputs.append(output)
    if request.id is not None:
        head = head | {"id": request.id}
    body = orjson.dumps(head | {"outputs": outputs})
    return (b"".join((body, *tail)), len(body)) if tail else (body, None)


def metadata(model: str, version: int | None, names: Sequence[str], is_decided: bool) -> ModelMetadata:
    """What the protocol tells about a model."""
    outputs = [
        TensorMetadata(name=name, datatype=_ENCODERS[name][0], shape=[-1])
        for name in OUTPUTS
        if name != "decision" or is_decided
    ]
    return ModelMetadata(
        name=model,
        versions=[] if version is None else [str(version)],
        platform="evenkeel_package",
        inputs=[TensorMetadata(name=INPUT, datatype="FP32", shape=[-1, len(names)])],
        outputs=outputs,
        parameters=ModelParameters(features=",".join(names)),
    )
