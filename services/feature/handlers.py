"""What feature does on each fact. The table at the foot maps payloads to handlers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.feature import DatasetCommitted, VectorComputed, ViewStarted, ViewUpdated
from evenkeel.contracts.governance import SubjectErased
from evenkeel.contracts.ids import dataset_committed_id, vector_id, view_started_id
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.service import Cause, Derived, Each, Merge, Output, Released, Watermark
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.domain.rows import Folded
from evenkeel.services.feature.domain.view import View
from evenkeel.services.feature.store import Commit, Offsets


def on_stream_declared(event: Event[StreamDeclared], ctx: FeatureContext) -> list[Derived]:
    """Remember the contract that accepted events name."""
    ctx.store.put_stream(event.offset, event.data)
    ctx.stream_declared(event.offset)
    return []


def on_model_declared(event: Event[ModelDeclared], ctx: FeatureContext) -> list[Derived | Watermark]:
    """Compute this model from here on; with other features from nothing, with these or another label into a new table."""
    return begin_view(event.offset, event.data, event, ctx)


def begin_view(
    offset: int, declared: ModelDeclared, cause: Event[ModelDeclared] | Cause, ctx: FeatureContext
) -> list[Derived | Watermark]:
    """What follows from a declaration by which a model is to be computed from here on."""
    changes = list(view_updates(ctx))
    ctx.snapshot()
    return [*changes, view_started(offset, declared, cause, ctx)] if ctx.declare(offset, declared) else changes


def on_subject_erased(event: Event[SubjectErased], ctx: FeatureContext) -> list[Derived]:
    """Keep the fact; declarations with personal fields are refused, so there is nothing to erase yet."""
    ctx.store.put_erased(event.data.stream, event.data.subject)
    return []


def on_released(released: Released, ctx: FeatureContext) -> list[Output]:
    """Evaluate each event's vector, then fold it; join labels; close the commits whose day has passed."""
    views, readers = ctx.readers(released.group)
    outputs: list[Output] = []
    folded: list[Folded] = []
    for event in released.events:
        data, stream, order_us = event.data, event.stream, event.order_us
        if isinstance(data, LabelAccepted):
            record = Folded(stream, order_us, event.time_us, data.label_id, data.event_id, data.fields)
        else:
            record = Folded(stream, order_us, event.time_us, data.event_id, None, data.fields)
        folded.append(record)
        for view in readers[stream]:
            if order_us >= view.cut_us:
                ctx.stage(view)
            vector = view.fold(record)
            if vector is not None:
                outputs.append(vector_computed(view, event, vector))
        ctx.seen(event)
    for view in views:
        if released.watermark_us >= view.cut_us:
            ctx.stage(view)
        view.advance(released.watermark_us)
        outputs.append(Watermark(VectorComputed, view.stream, released.watermark_us))
    ctx.keep(folded)
    if ctx.flush_due or ctx.snapshot_due:
        outputs += view_updates(ctx)
    if ctx.snapshot_due:
        ctx.snapshot()
    return outputs


def on_tick(ctx: FeatureContext) -> Iterable[Output]:
    """Publish view changes that no later batch has taken along, and take up what another release left out."""
    outputs = list(view_updates(ctx)) if ctx.flush_due else []
    for offset, declared in ctx.take_left_out():
        cause_id = f"{declared.name}|{offset}"
        outputs += begin_view(offset, declared, Cause(cause_id, ctx.now_us, cause_id), ctx)
    return outputs


def vector_computed(view: View, event: Event[EventAccepted], vector: list[float]) -> Derived:
    """A late event takes its turn at its stream's watermark; its vector does so in the merges behind us."""
    data = event.data
    payload = VectorComputed.checked(
        model=view.model,
        stream=data.stream,
        event_id=data.event_id,
        view_version=view.plan.view_version,
        declaration=view.declaration,
        values=[None if value != value else value for value in vector],
        late=data.late,
    )
    if data.late:
        view.counts.late += 1
    event_id = vector_id(event.id, view.model, view.plan.view_version)
    return Derived(payload, event, id=event_id, stream=view.stream, order_us=event.order_us)


def view_started(
    offset: int, declared: ModelDeclared, cause: Event[ModelDeclared] | Cause, ctx: FeatureContext
) -> Derived:
    """What a lost store is made again from, in this order: a declaration alone does not say what came before it."""
    offsets: Offsets = {}
    for (topic, partition), end in sorted(ctx.positions.items()):
        if topic in BY_NAME:  # not a former major of one
            offsets.setdefault(topic, {})[str(partition)] = end
    name, version = declared.name, declared.view_version
    payload = ViewStarted(model=name, view_version=version, declaration=offset, offsets=offsets)
    return Derived(payload, cause, id=view_started_id(cause.id))


def view_updates(ctx: FeatureContext) -> Iterator[Derived | Watermark]:
    """The changed slots of all views, each with its last record's time, and how far each view has come: of a compacted topic
    only the last clock record of a partition stays."""
    cause = Cause(ctx.last_event_id, 0, ctx.last_event_id)
    for view, updates in ctx.take_view_changes():
        for slot, tile in updates:
            payload = ViewUpdated.checked(
                view=view.model, view_version=view.plan.view_version, slot=slot, tile=list(tile)
            )
            time_us = tile[6]
            assert isinstance(time_us, int)
            yield Derived(payload, cause, time_us, stream=view.stream)
        if view.watermark_us:
            yield Watermark(ViewUpdated, view.stream, view.watermark_us)


def dataset_committed(commit: Commit, version: int, rows: int) -> Derived:
    """The event time of a commit is its cut: nothing earlier can change what it holds."""
    payload = DatasetCommitted(
        model=commit.model,
        uri=f"tables/{commit.model}",
        version=version,
        view_version=commit.view_version,
        declaration=commit.declaration,
        rows=rows,
        added=commit.added,
        first_event_time=format_us(commit.first_event_us),
        last_event_time=format_us(commit.last_event_us),
        label_cut=format_us(commit.cut_us),
        kept_from=None if commit.kept_from_us is None else format_us(commit.kept_from_us),
        offsets=commit.offsets,
    )
    event_id = dataset_committed_id(commit.model, commit.declaration, commit.cut_us)
    return Derived(payload, Cause(commit.cause_id, commit.cut_us, commit.cause_id), id=event_id)


HANDLERS = (
    Each(StreamDeclared, on_stream_declared),
    Each(ModelDeclared, on_model_declared),
    Each(SubjectErased, on_subject_erased),
    Merge((EventAccepted, LabelAccepted), on_released),
)
