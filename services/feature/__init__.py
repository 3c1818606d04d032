"""Turns accepted events into feature vectors, and vectors with matured labels into training tables.

Owns the windows of every model (view), the vectors that wait for a label, and the offline store (Delta tables).
Consumes event-accepted and label-accepted, merged in event time; stream-declared, model-declared, subject-erased.
Publishes vector-computed, view-updated, view-started and dataset-committed. Never looks at a label before the moment it
arrived.
"""
