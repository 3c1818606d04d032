"""One feature engine for live computing, request-time serving and backfill."""

from evenkeel.libs.features.declared import DeclaredModel, NotComputable, read_model
from evenkeel.libs.features.labels import LabelRule, parse_label
from evenkeel.libs.features.plan import FeaturePlan, PlanError, Problem, compile_plan
from evenkeel.libs.features.state import FeatureState, SlotUpdate
from evenkeel.libs.features.tiles import evaluate

__all__ = [
    "DeclaredModel",
    "FeaturePlan",
    "FeatureState",
    "LabelRule",
    "NotComputable",
    "PlanError",
    "Problem",
    "SlotUpdate",
    "compile_plan",
    "evaluate",
    "parse_label",
    "read_model",
]
