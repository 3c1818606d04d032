"""How graphs are written."""

from __future__ import annotations

from typing import Final

import onnx

OPSET: Final = {"": 21, "ai.onnx.ml": 3}
IR_VERSION: Final = 10
INPUT: Final = "rows"


def graph_bytes(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    model.ir_version = IR_VERSION
    return bytes(model.SerializeToString(deterministic=True))
