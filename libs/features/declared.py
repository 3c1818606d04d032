"""What a service makes of a model's declaration before it computes by it: all of it, or a reason why it cannot.

A declaration passed the door of the registry that took it, which may be of a newer release than this one. Who meets one
that he cannot compute leaves that one model as it is, says so, and goes on with all others.
"""

from __future__ import annotations

from typing import NamedTuple

from contracts.declaration import LabelSpec, ModelSpec, StreamSpec
from contracts.registry import ModelDeclared
from libs.features.labels import LabelRule, parse_label
from libs.features.plan import FeaturePlan, compile_plan


class NotComputable(ValueError):
    """This release cannot compute what is declared."""


class DeclaredModel(NamedTuple):
    """A declaration with everything that follows from it."""

    spec: ModelSpec
    stream: StreamSpec
    label: LabelSpec
    rule: LabelRule
    plan: FeaturePlan


def read_model(declared: ModelDeclared) -> DeclaredModel:
    """Raises NotComputable, saying what is not known here."""
    try:
        spec, streams = declared.typed_spec, declared.typed_streams
        plan = compile_plan(spec, streams)
        stream = streams[spec.stream]
        if stream.label is None:
            raise NotComputable(f"stream {spec.stream} declares no label")
        return DeclaredModel(spec, stream, stream.label, parse_label(spec.label), plan)
    except ValueError as error:
        raise NotComputable(
            f"model {declared.name}: this release cannot compute the declaration: {error}; upgrade this service"
        ) from error
