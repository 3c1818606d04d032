"""The tamper-evident log: Merkle tree, signed checkpoints, the stored log, and its offline verifier.

A leaf is the exact bytes of one consumed record (`log.py`), hashed into an RFC 9162 Merkle tree (`merkle.py`) whose
root is signed now and then (`checkpoint.py`). Whoever kept one checkpoint can later prove with nothing but the public
key that no leaf before it was changed, removed or reordered (`verify.py`).
"""
