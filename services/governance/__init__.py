"""Can prove what happened, and tell why.

Owns: the tamper-evident log of every topic, its checkpoints, and the lineage graph over the control plane.
Consumes: every topic of the map but its own and the view cache. Publishes: `governance.checkpoint-signed`.
Keeps: each record byte for byte, facts about models. Never: decides anything, skips a record, or dead-letters one.
"""
