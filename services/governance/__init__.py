"""Can prove what happened, and tell why.

Owns: the tamper-evident log of every topic but its own and the view cache, its checkpoints, and the lineage graph.
Keeps: each record byte for byte, the facts of the control plane.
Never: decides anything, skips a record, or dead-letters one.
"""
