"""serving owns which version answers here, and every answer.

Consumes champion-changed, model-declared, subject-erased, view-updated, vector-computed, and requests over HTTP.
Publishes prediction-made, version-activated, activation-failed, replica-seen.
Keeps folded champions, receipts and the online view in LMDB; loaded models and the view's windows in memory.
Never waits on another service, loads bytes it has not verified, or gives an answer that it has not recorded.
"""
