"""Answers: on the stream and over HTTP, with the champion's verified bytes.

Owns: which version answers here, and every answer.
Keeps: folded champions, receipts and the online view in LMDB; loaded models and the view's windows in memory.
Never: waits on another service, loads bytes it has not verified, or gives an answer that it has not recorded.
"""
