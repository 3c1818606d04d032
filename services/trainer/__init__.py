"""Decides when to train again, and trains.

Owns: decisions, runs and jobs.
Keeps: jobs with leases, runs, dataset cuts, what it folded of declarations and champions.
Never: trains inside the consume loop, reads a row later than a decision's time.
"""
