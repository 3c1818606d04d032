"""Stores: where effects, outgoing events and consumed positions commit together."""
