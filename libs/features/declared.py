"""What a service makes of a model's declaration before it computes by it: all of it, or a reason why it cannot.

A declaration passed the door of the registry that took it, which may be of a newer release than this one. Who meets one
that he cannot compute leaves that one model as it is, says so, and goes on with all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from evenkeel.contracts.declaration import LabelSpec, ModelSpec, StreamSpec
from evenkeel.contracts.registry import Declared
from evenkeel.libs.features.labels import LabelRule, parse_label
from evenkeel.libs.features.plan import FeaturePlan, compile_plan


class NotComputable(ValueError):
    """This release cannot compute what is declared."""


class DeclaredModel(NamedTuple):
    """A declaration with everything that follows from it."""

    spec: ModelSpec
    stream: StreamSpec
    label: LabelSpec
    rule: LabelRule
    plan: FeaturePlan


def read_model(name: str, declared: Declared, streams: Mapping[str, Declared]) -> DeclaredModel:
    """What the declaration of a model says together with its streams; raises NotComputable with what is not known here."""
    try:
        spec = ModelSpec.model_validate(declared)
        known = {stream: StreamSpec.model_validate(written) for stream, written in streams.items()}
        plan = compile_plan(spec, known)
        stream = known[spec.stream]
        if stream.label is None:
            raise NotComputable(f"stream {spec.stream} declares no label")
        return DeclaredModel(spec, stream, stream.label, parse_label(spec.label), plan)
    except ValueError as error:
        raise NotComputable(
            f"model {name}: this release cannot compute the declaration: {error}; upgrade this service"
        ) from error
