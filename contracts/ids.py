"""Ids and names that follow from others, each made by one function: who knows the one finds the other.

An id is made of the kind of its fact and of what it follows from, so that a repeat gets the same id. A kind is a fixed
text. Even where it looks like a topic it stays when that topic gets its next major: merges break ties by id, so with other
ids the same records would be folded in another order, and lineage would not find what an older release said.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import Final

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:evenkeel:event").bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

LABEL_SUFFIX: Final = "#label"
_VIEW_MARK: Final = "@"


def derived_id(service: str, cause_id: str, kind: str, index: int) -> str:
    """uuid5 of what an event follows from; the same cause gives the same id for ever.

    Written out because uuid.uuid5 costs three times as much on the data plane.

    >>> derived_id("feature", "a", "t", 0) == str(uuid.uuid5(uuid.UUID(bytes=_NAMESPACE), "feature|a|t|0"))
    True
    """
    name = _NAMESPACE + f"{service}|{cause_id}|{kind}|{index}".encode()
    text = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def random_id() -> str:
    """uuid4, for what follows from nothing: a command, a request. Written out for the same reason.

    >>> uuid.UUID(random_id()).version
    4
    """
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


# -- names of in-band streams: what a watermark speaks of, and what a merge waits for ------------------------------------


def label_stream(stream: str) -> str:
    """The name under which a stream's labels are merged and folded.

    >>> label_stream("flights")
    'flights#label'
    """
    return stream + LABEL_SUFFIX


def view_stream(model: str, view_version: str) -> str:
    """The name under which the vectors of one view of a model, and what is predicted from them, are merged.

    >>> view_stream("delay", "a3e2")
    'delay@a3e2'
    """
    return model + _VIEW_MARK + view_version


def view_of(stream: str) -> tuple[str, str]:
    """The model and the view version whose vectors travel under this name.

    >>> view_of("delay@a3e2")
    ('delay', 'a3e2')
    """
    model, _, view_version = stream.partition(_VIEW_MARK)
    return model, view_version


def merged_as(stream: str) -> str:
    """The name for which a merge waits: the views of a model take turns on each partition, and are one line there.

    >>> [merged_as(view_stream("delay", view)) for view in ("a3e2", "b4f3")], merged_as(label_stream("flights"))
    (['delay', 'delay'], 'flights#label')
    """
    return stream.partition(_VIEW_MARK)[0]


# -- the data plane ------------------------------------------------------------------------------------------------------


def accepted_event_id(stream: str, event_id: str) -> str:
    """The id of the accepted event of a producer's event: by the producer's id, wherever its record lay."""
    return derived_id("ingest", f"{stream}|{event_id}", "ingest.event-accepted.v1", 0)


def accepted_label_id(stream: str, label_id: str) -> str:
    """The id of the accepted label of a producer's label."""
    return derived_id("ingest", f"{label_stream(stream)}|{label_id}", "ingest.label-accepted.v1", 0)


def record_place(topic: str, partition: int, offset: int) -> str:
    """How a record without an id of its own is named.

    >>> record_place("orders", 2, 41)
    'orders/2/41'
    """
    return f"{topic}/{partition}/{offset}"


def rejected_record_id(place: str) -> str:
    """The id of a record's rejection: by its place, because what is in it may be no id at all."""
    return derived_id("ingest", place, "ingest.event-rejected.v1", 0)


def vector_id(accepted_id: str, model: str, view_version: str) -> str:
    """The id of the vector that a view of a model has of an accepted event: whichever other models and views there are."""
    return derived_id("feature", f"{accepted_id}|{view_stream(model, view_version)}", "vector-computed", 0)


def prediction_id(vector_id: str) -> str:
    """The id of the prediction that scores a vector on the stream. A request's prediction gets a random one."""
    return derived_id("serving", vector_id, "serving.prediction-made.v1", 0)


# -- the control plane ---------------------------------------------------------------------------------------------------


def view_started_id(declared_id: str) -> str:
    """By the id of the declaration that started the view."""
    return derived_id("feature", declared_id, "view-started", 0)


def dataset_committed_id(model: str, declaration: int, cut_us: int) -> str:
    """By what the commit holds: the latest event folded depends on how streams interleave, the cut does not."""
    return derived_id("feature", f"{model}|{declaration}|{cut_us}", "dataset-committed", 0)


def run_id(decision_cause_id: str) -> str:
    """The name of the run that a trigger led to, by the trigger's id."""
    return derived_id("trainer", decision_cause_id, "run", 0)


def attempt_id(run_id: str, step: str, attempt: int) -> str:
    """The id of a step of a run's attempt, from which its facts follow."""
    return derived_id("trainer", run_id, step, attempt)


def approval_nonce(run_id: str, package: str) -> str:
    """What an approval must name: that of one package of one run."""
    return derived_id("registry", f"{run_id}|{package}", "approval", 0)


def receipt_id(champion_changed_id: str, replica: str, number: int) -> str:
    """The id of a replica's receipt for an epoch; `number`: how often its outcome has changed."""
    return derived_id("serving", f"{champion_changed_id}|{replica}", "receipt", number)


def window_id(model: str, start_us: int, end_us: int) -> str:
    return derived_id("monitor", f"{model}|{start_us}|{end_us}", "monitor.window-measured.v1", 0)


def drift_id(model: str, epoch: int, end_us: int) -> str:
    """By the end of the window in which the drift was found."""
    return derived_id("monitor", f"{model}|{epoch}|{end_us}", "monitor.drift-detected.v1", 0)


def decay_id(model: str, epoch: int, end_us: int) -> str:
    return derived_id("monitor", f"{model}|{epoch}|{end_us}", "monitor.performance-degraded.v1", 0)


def alert_id(model: str, alert: str, state: str, time_us: int) -> str:
    return derived_id("monitor", f"{model}|{alert}|{state}|{time_us}", "monitor.alert-changed.v1", 0)


def dead_letter_cause_id(service: str, place: str) -> str:
    """From what a dead letter follows: the record itself, as one service saw it."""
    return derived_id(service, place, "record", 0)
