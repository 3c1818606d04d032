"""Turns accepted events into feature vectors, and vectors with matured labels into training tables.

Owns: the windows of every model (view), the vectors that wait for a label, and the offline store (Delta tables).
Keeps: a journal of what it has folded in event time since its last snapshot; commits until their table has them.
Never: looks at a label before the moment it arrived.
"""
