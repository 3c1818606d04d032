"""Measures models on what happened, and says when the world or a model has changed.

Owns the windows of every model: quality over labels by the time they arrived, inputs against the champion's profile.
Consumes predictions, vectors and labels, merged in event time; rejections; declarations, champions, runs, decisions.
Publishes window-measured, drift-detected, performance-degraded, alert-changed. Keeps open predictions to the label horizon.
Never decides about a model: trainer and registry do. Never uses a wall clock: the same input gives the same signals.
"""
