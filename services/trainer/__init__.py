"""trainer: decides when to train again, and trains.

Owns decisions, runs and jobs. Consumes stream- and model-declared, dataset-committed, drift-detected,
performance-degraded, gate-decided, champion-changed. Publishes retrain-decided, loop-changed, run-started, run-completed,
run-failed.
Keeps jobs with leases, and runs. Never trains inside the consume loop, never reads a row later than a decision's time.
"""
