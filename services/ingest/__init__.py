"""Checks what producers send against the declared contract of its stream, and says for every record what became of it.

Owns: raw topics, ids at the edge, watermarks.
Keeps: declarations by topic offset, ids seen within the horizon, one watermark and the statistics of each stream.
Never: changes a value silently, drops a record, lets a watermark go back, writes past its raw topic from HTTP.
"""
