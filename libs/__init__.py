"""Shared machinery and mathematics. Nothing here knows a service."""

import os

# onnxruntime uploads usage events unless this stands in the environment before its import (ADR 0001).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
