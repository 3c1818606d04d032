"""What a model package says of itself. Times are RFC 3339 in UTC; wall time is not part of it, so that the same data,
seeds and versions give the same digest."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT: Final = "io.evenkeel.model-package.v1"
DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
FILE_NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Count: TypeAlias = Annotated[int, Field(ge=0)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Parameter: TypeAlias = bool | int | Finite | str | None


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class FeatureSchema(Part):
    """The columns of an input row, in order, and the digest of the definitions that compute them."""

    view_version: str
    names: tuple[str, ...] = Field(min_length=1)


class DatasetRecord(Part):
    """The table version that was read: `rows` of it, all with labels known before `label_cut`."""

    uri: str
    version: Count
    rows: Count
    first_event_time: str
    last_event_time: str
    label_cut: str
    offsets: dict[str, dict[str, Count]]
    content_sha256: str
    """Over the rows that were read, in order: identifies them also after the table was compacted."""


class Split(Part):
    """Trained on labels known before `training_label_cut`, evaluated on events from `evaluation_from` on."""

    training_rows: Count
    training_label_cut: str
    evaluation_rows: Count
    evaluation_from: str
    evaluation_until: str


class ModelFile(Part):
    """How to ask model.onnx: float32[n, k] in, float32 or float64 [n, c] out, of which `column` is the answer."""

    input: str
    output: str
    column: Count


class FileRecord(Part):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count


class ManifestCore(Part):
    """The manifest without the list of files, as whoever makes a package writes it."""

    format: Literal["io.evenkeel.model-package.v1"] = FORMAT
    model: str
    task: Literal["binary", "regression"]
    run_id: str
    created: str
    """Event time of the decision that asked for it."""
    stream: str
    label: str
    """The label expression of the declaration."""
    declaration: Count
    """Offset of the model's declaration."""
    features: FeatureSchema
    estimator: str
    parameters: dict[str, Parameter]
    threshold: Finite | None
    onnx: ModelFile
    linear: bool
    """Whether linear.json holds the same model as coefficients, which is the faster way to answer."""
    dataset: DatasetRecord
    split: Split
    code_commit: str
    seed: int
    threads: Annotated[int, Field(ge=1)]
    versions: dict[str, str]


class Manifest(ManifestCore):
    files: dict[Annotated[str, Field(pattern=FILE_NAME_PATTERN)], FileRecord]

    def to_bytes(self) -> bytes:
        return canonical_json(self)


class GoldenRows(Part):
    """Rows and the answers the model gave when it was made; null is a missing value.

    An answer matches within `tolerance`, absolute for probabilities and relative to max(1, |expected|) otherwise.
    """

    tolerance: Annotated[float, Field(gt=0.0)]
    rows: tuple[tuple[Finite | None, ...], ...] = Field(min_length=1)
    expected: tuple[Finite, ...]

    @model_validator(mode="after")
    def _consistent(self) -> GoldenRows:
        if len(self.expected) != len(self.rows) or len({len(row) for row in self.rows}) != 1:
            raise ValueError("golden rows must be of one length, with one expected answer each")
        return self

    def matrix(self) -> NDArray[np.float32]:
        """The rows as float32[n, k] with NaN for missing."""
        return np.array([[math.nan if value is None else value for value in row] for row in self.rows], np.float32)


class LinearCoefficients(Part):
    """z = intercept + sum over features of (missing[j] if row[j] is NaN else weights[j] * row[j]); see `Scorer`."""

    link: Literal["logistic", "identity"]
    intercept: Finite
    weights: tuple[Finite, ...]
    missing: tuple[Finite, ...]

    @model_validator(mode="after")
    def _consistent(self) -> LinearCoefficients:
        if len(self.weights) != len(self.missing):
            raise ValueError("weights and missing must have one value per feature")
        return self


def canonical_json(value: BaseModel | dict[str, Any]) -> bytes:
    """The one way packages write JSON: keys sorted, indented by two, a newline at the end; no NaN or infinity."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    _refuse_not_finite(plain, "$")
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _refuse_not_finite(value: Any, path: str) -> None:
    """orjson would write null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}: JSON has no such number")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_not_finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_not_finite(item, f"{path}[{index}]")
