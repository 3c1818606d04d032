"""One feature engine for live computing, request-time serving and backfill."""

from libs.features.declared import DeclaredModel, NotComputable, read_model
from libs.features.labels import LabelRule, parse_label
from libs.features.plan import FeaturePlan, PlanError, Problem, compile_plan
from libs.features.state import FeatureState, SlotUpdate
from libs.features.tiles import evaluate

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
