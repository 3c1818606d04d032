"""What registry answers: declarations, versions, champions, approvals, rollback."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field

from evenkeel.contracts.http.messages import (
    Answer,
    Detail,
    Epoch,
    EventTime,
    ModelName,
    Package,
    Problem,
    Query,
    Request,
    RunId,
    StreamName,
    VersionNumber,
    ViewVersion,
    WallTime,
)
from evenkeel.contracts.http.route import JSON, Content, Parameter, Route
from evenkeel.contracts.payload import Count, Finite, Word
from evenkeel.contracts.trainer import Comparison, Scores


class ApplyQuery(Query):
    dry_run: bool = False
    """Only check, and say what would change."""


class Applied(Answer):
    """What a declaration changed; with `dry_run`, what it would change. What is as it was is not named."""

    dry_run: bool
    """Whether nothing was changed, because only that was asked for."""
    streams: list[StreamName]
    """Streams that are new or declared otherwise."""
    models: list[ModelName]
    """Models that are new or declared otherwise, or whose streams are."""


class DeclarationFault(Answer):
    """One thing that is wrong with a declaration."""

    line: int
    """In the file, from 1; 0 if it is about no line."""
    field: str
    """The path of the key."""
    message: str
    """What is wrong."""
    fix: str
    """What to write instead."""


class DeclarationProblem(Problem):
    """A declaration that cannot be applied: everything that is wrong with it."""

    problems: list[DeclarationFault] = Field(default_factory=list)
    """Everything that is wrong, by line."""


class JsonSchema(Answer):
    """A JSON Schema (2020-12)."""

    model_config = ConfigDict(extra="allow")

    title: str
    """Its name."""
    type: str
    """Of the whole."""
    properties: dict[str, Any]
    """Schemas of its keys."""


class DeclaredStreams(Answer):
    """Streams as they are declared."""

    streams: dict[StreamName, dict[str, Any]]
    """Each as `/v1/declarations/schema` of the release that took it says."""


class ChampionInShort(Answer):
    """Which version answers."""

    version: VersionNumber
    epoch: Epoch
    run_id: str
    """The run that made it."""


class DeclaredModel(Answer):
    """A model as it is declared, and its champion."""

    model: ModelName
    spec: dict[str, Any]
    """As `/v1/declarations/schema` of the release that took it says."""
    view_version: ViewVersion
    event_time: EventTime | None = None
    """The latest that was heard of the model; null before anything was."""
    champion: ChampionInShort | None = None
    """Null before the first promotion."""


class DeclaredModels(Answer):
    """Every declared model."""

    models: list[DeclaredModel]
    """By name."""


class Evidence(Answer):
    """What a run showed on rows that neither model was trained on."""

    candidate: Scores
    """Of the version."""
    champion: Scores | None = None
    """Of the champion then, on the same rows; null if there was none."""
    comparison: Comparison | None = None
    """How much better the version was; null without a champion."""
    training_rows: Count
    """Rows that it was trained on."""
    evaluation_rows: Count
    """Rows that both were evaluated on."""


class GateVerdict(Answer):
    """One gate's verdict on one run."""

    run_id: RunId
    gate: Word
    """`better_than_champion`, `golden_rows`, `package_size`, …"""
    passed: bool
    """Whether the version may go on."""
    value: Finite | None = None
    """What it looked at, if that is a number."""
    bar: Finite | None = None
    """What it was held to."""
    detail: Detail


class Version(Answer):
    """A registered package."""

    version: VersionNumber
    package: Package
    package_uri: str
    """Where the package is, below the data folder."""
    package_bytes: Count
    """Its size."""
    view_version: ViewVersion
    run_id: RunId
    dataset_version: Count
    """The training table's version that the run read."""
    estimator: str
    """What was fitted."""
    threshold: Finite | None = None
    """From this score on the decision is yes; null if the model decides nothing."""
    state: Word
    """`registered`, `refused`, `awaiting_approval`, `rejected`, `champion`, `retired` or `quarantined`."""
    registered: EventTime
    """Event time of its registration."""
    evidence: Evidence | None = None
    """Null while a rebuilt registry has not read the run again."""
    gates: list[GateVerdict]
    """One verdict a gate, of each run that brought this package."""


class Versions(Answer):
    """A model's versions."""

    model: ModelName
    versions: list[Version]
    """The oldest first."""


class Receipt(Answer):
    """What a replica of serving said about an epoch."""

    replica: str
    """Which replica of serving."""
    state: Word
    """`active`, or why it could not put the version to work."""
    detail: Detail
    recorded: WallTime
    """When it said so."""


class ChampionEpoch(Answer):
    """One champion, and how the replicas took it."""

    epoch: Epoch
    version: VersionNumber
    package: Package
    since: EventTime
    """Event time of the promotion."""
    previous_version: Count | None = None
    """The version that a rollback goes back to."""
    cause: Word
    """`promotion`, `approval` or `rollback`."""
    active: bool
    """Whether this is the champion now."""
    receipts: list[Receipt]
    """One of each replica that answered."""


class ChampionHistory(Answer):
    """Who answers, and who did."""

    model: ModelName
    champion: ChampionEpoch | None = None
    """Null before the first promotion."""
    history: list[ChampionEpoch]
    """The oldest first, with the present one."""


class Approval(Answer):
    """A request for approval."""

    nonce: str
    """Names the request; it is good for one answer."""
    version: VersionNumber
    package: Package
    epoch: Count
    """The champion's epoch that it was asked against; 0: there was none."""
    expires: WallTime
    """Until when it may be answered."""
    state: Word
    """`open`, `approved`, `rejected` or `overtaken`."""
    approver: str | None = None
    """Who answered, as he called himself; null while it is open."""
    comment: str | None = None
    """What he said; null while it is open."""


class Approvals(Answer):
    """A model's requests for approval."""

    model: ModelName
    approvals: list[Approval]
    """By version."""


class ApprovalRequest(Request):
    """Answer one request for approval. `package` is repeated so that nobody approves what he has not looked at."""

    nonce: str = Field(max_length=100)
    """Of the request."""
    package: str = Field(max_length=100)
    """The package that the request is about."""
    approved: bool
    """Whether the version may answer."""
    approver: str = Field(min_length=1, max_length=200)
    """Who decides."""
    comment: str = Field("", max_length=1000)
    """Why; it is published."""


class ApprovalResult(Answer):
    """What came of an approval."""

    promoted: bool
    """Whether the version answers now."""
    version: Count
    """The version that was asked about."""
    reason: str | None = None
    """Why nothing was promoted, if that was not the approver's decision."""


class RollbackRequest(Request):
    """Take the champion of `epoch` (or whichever answers) out of service."""

    epoch: int | None = Field(None, ge=1, le=2**63 - 1)
    """The epoch that is to end; if it is over already, nothing changes."""
    reason: str = Field("by hand", max_length=1000)
    """Why; it is published."""


class RollbackResult(Answer):
    """Who answers now."""

    changed: bool
    """Whether the champion was taken out of service."""
    epoch: Epoch
    version: VersionNumber
    reason: str | None = None
    """Why nothing changed."""


APPLY: Final = Route(
    name="apply",
    method="POST",
    path="/v1/declarations",
    role="scientist",
    summary="Declare streams and models",
    description="YAML, or the same as JSON; `/v1/declarations/schema` says what may stand in it. All of it is taken or "
    "nothing; what is as it was is not said again.",
    answer=Applied,
    query=ApplyQuery,
    body=Content({"application/yaml": {"type": "string"}, JSON: {"type": "object"}}),
    headers={"x-filename": Parameter("The file's name, for messages.", "flight-delay.yaml")},
    answers={409: Problem, 422: DeclarationProblem},
    is_repeatable=True,
)
SCHEMA: Final = Route(
    name="declaration-schema",
    method="GET",
    path="/v1/declarations/schema",
    role="scientist",
    summary="The JSON Schema of declarations",
    description="For editors and checks before a declaration is sent.",
    answer=JsonSchema,
)
STREAMS: Final = Route(
    name="streams",
    method="GET",
    path="/v1/streams",
    role="scientist",
    summary="Declared streams",
    description="Every stream's contract as it was declared last.",
    answer=DeclaredStreams,
)
MODELS: Final = Route(
    name="models",
    method="GET",
    path="/v1/models",
    role="scientist",
    summary="Declared models",
    description="Every model's declaration, and which version answers.",
    answer=DeclaredModels,
)
MODEL: Final = Route(
    name="model",
    method="GET",
    path="/v1/models/{model}",
    role="scientist",
    summary="One declared model",
    description="Its declaration, and which version answers.",
    answer=DeclaredModel,
)
VERSIONS: Final = Route(
    name="versions",
    method="GET",
    path="/v1/models/{model}/versions",
    role="scientist",
    summary="A model's versions",
    description="Every registered package, with its evidence and the verdicts of its gates.",
    answer=Versions,
)
CHAMPION: Final = Route(
    name="champion",
    method="GET",
    path="/v1/models/{model}/champion",
    role="client",
    summary="Who answers, and who did",
    description="The champion, every champion before it, and how serving's replicas took each.",
    answer=ChampionHistory,
)
APPROVALS: Final = Route(
    name="approvals",
    method="GET",
    path="/v1/models/{model}/approvals",
    role="approver",
    summary="A model's requests for approval",
    description="The open ones and those that were answered.",
    answer=Approvals,
)
APPROVE: Final = Route(
    name="approve",
    method="POST",
    path="/v1/models/{model}/approvals",
    role="approver",
    summary="Answer a request for approval",
    description="Once, for the very package and epoch that it was asked for; else 409.",
    answer=ApprovalResult,
    body=ApprovalRequest,
    answers={409: Problem},
)
ROLLBACK: Final = Route(
    name="rollback",
    method="POST",
    path="/v1/models/{model}/rollback",
    role="approver",
    summary="Take the champion out of service",
    description="Its predecessor answers again, and the version is quarantined. 409 if there is no predecessor.",
    answer=RollbackResult,
    body=RollbackRequest,
    answers={409: Problem},
)

ROUTES: Final[tuple[Route[Any], ...]] = (
    APPLY,
    SCHEMA,
    STREAMS,
    MODELS,
    MODEL,
    VERSIONS,
    CHAMPION,
    APPROVALS,
    APPROVE,
    ROLLBACK,
)
