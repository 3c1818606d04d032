"""What can be asked of serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenkeel.contracts.http import serving
from evenkeel.contracts.http.route import JSON
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of, json_bytes
from evenkeel.libs.client.operation import C_co, operation

FeatureValues = Mapping[str, float | bool | str | None]
"""Features by name; None: missing."""


class Serving(Operations[C_co]):
    """Predictions."""

    service = "serving"

    @operation
    def models(self) -> Call[serving.ServedModels]:
        """Who answers on this replica."""
        return call_of(self.service, serving.MODELS)

    @operation
    def predict(
        self,
        model: str,
        *,
        features: FeatureValues | None = None,
        event: Mapping[str, Any] | None = None,
        event_id: str | None = None,
        event_time: str | None = None,
    ) -> Call[serving.Prediction]:
        """One prediction, for features or for an event of the model's stream."""
        named = {"features": features, "event": event, "event_id": event_id, "event_time": event_time}
        return _prediction(model, named, serving.Prediction.model_validate_json)

    @operation
    def predict_many(
        self, model: str, instances: Sequence[FeatureValues], *, event_time: str | None = None
    ) -> Call[serving.Predictions]:
        """One prediction for each row of features."""
        named = {"instances": list(instances), "event_time": event_time}
        return _prediction(model, named, serving.Predictions.model_validate_json)

    @operation
    def server_metadata(self) -> Call[serving.ServerMetadata]:
        """The Open Inference Protocol's server metadata."""
        return call_of(self.service, serving.SERVER)

    @operation
    def server_live(self) -> Call[serving.ServerLive]:
        """The protocol's liveness."""
        return call_of(self.service, serving.SERVER_LIVE)

    @operation
    def server_ready(self) -> Call[serving.ServerReady]:
        """The protocol's readiness; refused (503) until champions are loaded."""
        return call_of(self.service, serving.SERVER_READY)

    @operation
    def model_metadata(self, model: str, version: str | None = None) -> Call[serving.ModelMetadata]:
        """What a model takes and gives, in the protocol's form."""
        if version is None:
            return call_of(self.service, serving.MODEL_METADATA, model=model)
        return call_of(self.service, serving.VERSION_METADATA, model=model, version=version)

    @operation
    def model_ready(self, model: str, version: str | None = None) -> Call[serving.ModelReady]:
        """Whether a model, or this version of it, answers; refused if not."""
        if version is None:
            return call_of(self.service, serving.MODEL_READY, model=model)
        return call_of(self.service, serving.VERSION_READY, model=model, version=version)

    @operation
    def infer(
        self, model: str, request: serving.InferRequest, *, version: str | None = None
    ) -> Call[serving.InferAnswer]:
        """The protocol's inference, in JSON."""
        if version is None:
            return call_of(self.service, serving.INFER, body=request, model=model)
        return call_of(self.service, serving.INFER_VERSION, body=request, model=model, version=version)


def _prediction(model: str, named: Mapping[str, Any], read: Any) -> Call[Any]:
    content = json_bytes({name: value for name, value in named.items() if value is not None})
    return Call("serving", serving.PREDICT, read, {"model": model}, {}, content, {"content-type": JSON})
