"""Knows which versions of a model there are, which one answers, and why.

Owns: streams, models, versions, gates, approvals, champions with epochs.
Keeps: all of these.
Never: trains, serves, or lets a version pass without its evidence.
"""
