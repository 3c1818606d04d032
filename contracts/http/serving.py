"""What serving answers: predictions, in its own form and in that of the Open Inference Protocol, and who answers here.

The protocol: kserve/open-inference-protocol, specification/protocol/inference_rest.md; binary tensors as in Triton's
extension_binary_data.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, RootModel
from pydantic.json_schema import SkipJsonSchema

from evenkeel.contracts.http.messages import (
    Answer,
    Epoch,
    ModelName,
    Package,
    Problem,
    ProtocolError,
    Request,
    VersionNumber,
    ViewVersion,
    WallTime,
)
from evenkeel.contracts.http.route import JSON, Content, Parameter, Route
from evenkeel.contracts.payload import Count, Finite

OCTETS: Final = "application/octet-stream"
PREDICTION_KINDS: Final = ("features", "instances", "event")

Absent = SkipJsonSchema[None]
"""May be left out, but not null."""
FeatureValue = Annotated[
    bool | Finite | str | None, Field(description="null: missing. A category is given as its text, or as its code.")
]
Features = dict[str, FeatureValue]


class PredictRequest(Request):
    """What to predict for: exactly one of `features`, `instances` and `event`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in PREDICTION_KINDS]})

    features: Features | Absent = None
    """Every feature of the model by its name."""
    instances: Annotated[list[Features], Field(min_length=1)] | Absent = None
    """Several rows of features."""
    event: dict[str, Any] | Absent = None
    """An event of the model's stream: features are computed from its fields and the online view."""
    event_id: str | Absent = None
    """The event that this is about, so that its label is found; an id of the event itself is taken too."""
    event_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | Absent = None
    """When it happened; without it, the online view's time."""


class OnePrediction(Answer):
    """A score, recorded under its id before it was answered."""

    prediction_id: str
    """Its CloudEvents id."""
    event_id: str
    """The event it is about; the prediction's own id if none was named."""
    score: Finite
    """Probability of the positive class, or the regression's value."""
    decision: bool | None = None
    """Whether the score reaches the version's threshold; null if the model decides nothing."""


class Prediction(OnePrediction):
    """The answer to `features` and to `event`."""

    model: ModelName
    version: VersionNumber
    epoch: Epoch


class Predictions(Answer):
    """The answer to `instances`, in their order."""

    model: ModelName
    version: VersionNumber
    epoch: Epoch
    predictions: list[OnePrediction]
    """One for each row."""


class PredictAnswer(RootModel[Predictions | Prediction]):
    """One prediction, or one for each of the instances."""


class ServedChampion(Answer):
    """The version that answers on this replica."""

    version: VersionNumber
    epoch: Epoch
    package: Package
    view_version: ViewVersion
    threshold: Finite | None = None
    """From this score on the decision is yes."""
    is_fallback: bool
    """Whether it is the rollback target, because the champion could not be loaded."""
    activated: WallTime
    """Since when it answers here."""
    load_seconds: Finite
    """How long it took to verify and load it."""


class ServedModel(Answer):
    """Who answers for a model on this replica."""

    model: ModelName
    decided_epoch: Count | None = None
    """The latest that registry has decided; null before the first promotion."""
    champion: ServedChampion | None = None
    """Null while none answers here."""


class ServedModels(Answer):
    """Every declared model."""

    models: list[ServedModel]
    """By name."""


class ServerMetadata(Answer):
    """The protocol's server metadata."""

    name: str
    """`evenkeel`."""
    version: str
    """The release."""
    extensions: list[str]
    """Those of the protocol that it knows."""


class ServerLive(Answer):
    """The protocol's liveness."""

    live: bool
    """True."""


class ServerReady(Answer):
    """The protocol's readiness."""

    ready: bool
    """True."""


class ModelReady(Answer):
    """The protocol's readiness of a model."""

    name: ModelName
    ready: bool
    """True."""


class TensorMetadata(Answer):
    """One input or output."""

    name: str
    """Of the tensor."""
    datatype: str
    """In the protocol's words, such as FP32."""
    shape: list[int]
    """-1: any number of rows."""


class ModelParameters(Answer):
    """What the protocol has no field for."""

    features: str
    """The features' names in the order of the input's columns, separated by commas."""


class ModelMetadata(Answer):
    """The protocol's model metadata: what the champion takes and gives; without a champion, what is declared."""

    name: ModelName
    versions: list[str]
    """The version that answers here, if one does."""
    platform: str
    """`evenkeel_package`."""
    inputs: list[TensorMetadata]
    """What it takes."""
    outputs: list[TensorMetadata]
    """What it gives."""
    parameters: ModelParameters
    """What the protocol has no field for."""


Datatype = Literal[
    "FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8", "BOOL"
]


class ProtocolRequest(Request):
    """A part of a request of the protocol; what it does not know is left to extensions."""

    model_config = ConfigDict(extra="allow")


class InputParameters(ProtocolRequest):
    """Extensions of one input."""

    binary_data_size: int | Absent = None
    """Bytes of this tensor behind the JSON, instead of `data`."""


class InputTensor(ProtocolRequest):
    """Either all features, [n, k], or one of them, [n] or [n, 1]."""

    name: str
    """A feature's name; of a tensor with all of them, anything."""
    shape: list[int]
    """Rows and columns."""
    datatype: Datatype
    """Of the values."""
    parameters: InputParameters | Absent = None
    """Extensions."""
    data: list[Any] | Absent = None
    """Numbers, flat or nested; null: missing."""


class OutputParameters(ProtocolRequest):
    """Extensions of one output."""

    binary_data: bool | Absent = None
    """Whether it is wanted behind the JSON."""


class RequestedOutput(ProtocolRequest):
    """One output that is wanted."""

    name: Literal["score", "decision", "prediction_id"]
    """Which one."""
    parameters: OutputParameters | Absent = None
    """Extensions."""


class InferParameters(ProtocolRequest):
    """Extensions of a request."""

    event_id: str | Absent = None
    """The event that a single row is about, so that its label is found."""
    binary_data_output: bool | Absent = None
    """Whether all outputs are wanted behind the JSON."""


class InferRequest(ProtocolRequest):
    """The protocol's inference request."""

    id: str | Absent = None
    """Comes back with the answer."""
    parameters: InferParameters | Absent = None
    """Extensions."""
    inputs: list[InputTensor] = Field(min_length=1)
    """One tensor with all features, or one a feature."""
    outputs: list[RequestedOutput] | Absent = None
    """Which outputs are wanted; without it, all."""


class TensorParameters(Answer):
    """Extensions of one output."""

    binary_data_size: Count
    """Bytes of this tensor behind the JSON."""


class OutputTensor(Answer):
    """`score` (FP64), `decision` (BOOL) or `prediction_id` (BYTES), one value a row."""

    name: str
    """Which output."""
    datatype: str
    """Of the values."""
    shape: list[Count]
    """One dimension: the rows."""
    data: list[bool] | list[Finite] | list[str] | None = None
    """Left out if its bytes are behind the JSON."""
    parameters: TensorParameters | None = None
    """Extensions; null if there are none."""


class AnswerParameters(Answer):
    """What the protocol has no field for."""

    epoch: Count
    """The champion's epoch."""


class InferAnswer(Answer):
    """The protocol's inference response."""

    model_name: ModelName
    model_version: str
    """The version that answered."""
    id: str | None = None
    """The request's."""
    parameters: AnswerParameters
    """What the protocol has no field for."""
    outputs: list[OutputTensor]
    """Those that were wanted and that the model gives."""


_OCTETS: Final[dict[str, Any]] = {"type": "string", "format": "binary"}
_INFER: Final = (
    "The Open Inference Protocol, in JSON or with binary tensors behind it. The answer is given once it is recorded."
)
_BINARY: Final = {
    "inference-header-content-length": Parameter("Bytes of the JSON part, if tensors follow it.", "212", "integer")
}
_TRACE: Final = {
    "traceparent": Parameter("W3C trace context.", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

SERVER: Final = Route(
    name="server-metadata",
    method="GET",
    path="/v2",
    role="client",
    summary="The protocol's server metadata",
    description="Name, version and the extensions of the Open Inference Protocol that it knows.",
    answer=ServerMetadata,
    refusal=ProtocolError,
)
SERVER_LIVE: Final = Route(
    name="server-live",
    method="GET",
    path="/v2/health/live",
    role="public",
    summary="The protocol's liveness",
    description="Whether the process answers.",
    answer=ServerLive,
    refusal=ProtocolError,
)
SERVER_READY: Final = Route(
    name="server-ready",
    method="GET",
    path="/v2/health/ready",
    role="public",
    summary="The protocol's readiness",
    description="503 until every champion that was known at the start has been tried.",
    answer=ServerReady,
    answers={503: ProtocolError},
    refusal=ProtocolError,
)
MODEL_METADATA: Final = Route(
    name="model-metadata",
    method="GET",
    path="/v2/models/{model}",
    role="client",
    summary="The protocol's model metadata",
    description="The schema that the model's champion takes; of a declared model without one, the declared schema.",
    answer=ModelMetadata,
    refusal=ProtocolError,
)
VERSION_METADATA: Final = Route(
    name="version-metadata",
    method="GET",
    path="/v2/models/{model}/versions/{version}",
    role="client",
    summary="The protocol's metadata of a version",
    description="As that of the model, if this version answers here.",
    answer=ModelMetadata,
    refusal=ProtocolError,
)
MODEL_READY: Final = Route(
    name="model-ready",
    method="GET",
    path="/v2/models/{model}/ready",
    role="client",
    summary="The protocol's readiness of a model",
    description="503 until a version of it answers here.",
    answer=ModelReady,
    refusal=ProtocolError,
)
VERSION_READY: Final = Route(
    name="version-ready",
    method="GET",
    path="/v2/models/{model}/versions/{version}/ready",
    role="client",
    summary="The protocol's readiness of a version",
    description="404 unless this version answers here.",
    answer=ModelReady,
    refusal=ProtocolError,
)
MODELS: Final = Route(
    name="models",
    method="GET",
    path="/v1/models",
    role="client",
    summary="Who answers here",
    description="Every declared model: who answers here since when, and the latest epoch that was decided.",
    answer=ServedModels,
)
PREDICT: Final = Route(
    name="predict",
    method="POST",
    path="/v1/models/{model}/predict",
    role="client",
    summary="Predict",
    description="For given features, for several rows of them, or for an event, whose features are completed from the online "
    "view. The answer is given once it is recorded.",
    answer=PredictAnswer,
    body=PredictRequest,
    headers=_TRACE,
    answers={415: Problem},
)
INFER: Final = Route(
    name="infer",
    method="POST",
    path="/v2/models/{model}/infer",
    role="client",
    summary="The protocol's inference",
    description=_INFER,
    answer=InferAnswer,
    also_as={OCTETS: _OCTETS},
    body=Content({JSON: InferRequest, OCTETS: _OCTETS}),
    headers=_BINARY | _TRACE,
    answers={415: ProtocolError},
    refusal=ProtocolError,
)
INFER_VERSION: Final = Route(
    name="infer-version",
    method="POST",
    path="/v2/models/{model}/versions/{version}/infer",
    role="client",
    summary="The protocol's inference by a version",
    description=_INFER + " 404 unless this version answers here.",
    answer=InferAnswer,
    also_as={OCTETS: _OCTETS},
    body=Content({JSON: InferRequest, OCTETS: _OCTETS}),
    headers=_BINARY | _TRACE,
    answers={415: ProtocolError},
    refusal=ProtocolError,
)

HOT: Final = (PREDICT, INFER, INFER_VERSION)
"""Answered in front of the framework."""
ROUTES: Final[tuple[Route[Any], ...]] = (
    SERVER,
    SERVER_LIVE,
    SERVER_READY,
    MODEL_METADATA,
    VERSION_METADATA,
    MODEL_READY,
    VERSION_READY,
    MODELS,
    *HOT,
)
