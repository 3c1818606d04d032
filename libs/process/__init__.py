"""Processes and the machine they run on: folders owned by one at a time, children that end with their owner, ports."""
