"""Measures models on what happened, and says when the world or a model has changed.

Owns: the windows of every model: quality over labels by the time they arrived, inputs against the champion's profile.
Keeps: open predictions to the label horizon, windows and signals.
Never: decides about a model, as trainer and registry do; uses a wall clock: the same input gives the same signals.
"""
