"""The oracle from outside: it knows the topics' public contracts and nothing of our code.

It reads with another Kafka client (confluent-kafka, on librdkafka), over the public HTTP APIs, and from files; what it has to
recompute (windows, Merkle roots, scores) it computes its own way. Numbers are those of guarantees.md, section 8.

What it cannot know it does not judge: a model declared anew with other features (its windows begin in the middle), gaps in
the sequences of a store that followed a lost one, and the log's completeness where governance is not there to be asked.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

import httpx2
import numpy as np
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from tests.invariants import signed_log
from tests.invariants.naive_windows import Naive, differences, groups
from tests.invariants.reading import (
    HEARTBEAT,
    VIEW,
    Event,
    Record,
    Topics,
    duration_us,
    end_offsets,
    read_topics,
    time_us,
)

GATES: Final = {"better_than_champion", "golden_rows", "package_size", "view_version", "cooldown"}
WALKED_LEAVES: Final = 700
"""A longer log is sampled at this many leaves, and its root is left to `evenkeel verify`."""
CHECKED_VECTORS: Final = 2_000
CHECKED_SCORES: Final = 500
VIEW_BEHIND_SECONDS: Final = 2.5
SHOWN: Final = 5
"""Violations of one kind that are told one by one."""


@dataclass(frozen=True)
class Violation:
    """A promise that does not hold: which one (guarantees, section 8), and what was seen."""

    invariant: int
    detail: str


@dataclass(frozen=True)
class Answer:
    """What a client of serving got for one request: the status (0: none) and the body."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Exit:
    """How a process ended that was asked to (SIGTERM): its exit code, None if it had to be killed."""

    code: int | None
    seconds: float


class Oracle:
    """Reads a system that has come to rest; `violations` looks anew each time, single checks at what was read last.

    `sent`: raw topic → ids of the records that the producer sent; `acknowledged`: those of them that the broker or HTTP
    202 acknowledged, all of `sent` unless said. Without `urls` and `token` what only HTTP can tell is not checked.
    """

    def __init__(
        self,
        broker: str,
        data_dir: Path,
        urls: Mapping[str, str] = {},
        token: str | None = None,
        sent: Mapping[str, Collection[bytes]] | None = None,
        acknowledged: Mapping[str, Collection[bytes]] | None = None,
    ) -> None:
        self.broker, self.data_dir, self.urls, self.token = broker, Path(data_dir), dict(urls), token
        self.sent = sent
        self.acknowledged = sent if acknowledged is None else acknowledged
        self._trusted: bytes | None = None

    def violations(self) -> list[Violation]:
        """All that can be seen at rest."""
        self.look()
        return [violation for check in self.CHECKS for violation in check(self)]

    def look(self) -> None:
        """Forget what was read, so that the next check reads anew."""
        for name in ("topics", "log", "report", "_packages", "_models"):
            self.__dict__.pop(name, None)

    # -- what is looked at --------------------------------------------------------------------------------------------

    @cached_property
    def topics(self) -> Topics:
        return read_topics(self.broker)

    def get(self, service: str, path: str, **parameters: Any) -> Any:
        """The JSON that a service answers to an auditor; LookupError if it answers anything but 200."""
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx2.Client(base_url=self.urls[service], headers=headers, timeout=30) as http:
            return _json(http.get(path, params=parameters))

    def _asks(self, service: str) -> bool:
        return service in self.urls and self.token is not None

    @cached_property
    def _models(self) -> dict[str, list[Event]]:
        """Model → its declarations."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.topics.once("registry.model-declared.v1"):
            found[event.data["name"]].append(event)
        return found

    def _champions(self) -> dict[str, list[Event]]:
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.topics.once("registry.champion-changed.v1"):
            found[event.data["model"]].append(event)
        return found

    def _dead(self, service: str) -> set[tuple[str, int, int]]:
        letters = self.topics.data(f"{service}.record-dead-lettered.v1")
        return {(letter["topic"], letter["partition"], letter["offset"]) for letter in letters}

    # -- 1 ------------------------------------------------------------------------------------------------------------

    def acknowledged_is_logged(self) -> list[Violation]:
        """1: {acknowledged} ⊆ ids in the log ⊆ {sent}; and what was accepted is what the producer wrote."""
        found: list[str] = []
        logged: dict[str, set[bytes]] = defaultdict(set)
        for event in self._outcomes():
            raw = event.data["raw"]
            record = self.topics.by_place.get((raw["topic"], raw["partition"], raw["offset"]))
            record_id = event.data.get("label_id", event.data["event_id"])
            if record is None:
                first = self.topics.ends.get((raw["topic"], raw["partition"]), (0, 0))[0]
                if raw["offset"] >= first:
                    found.append(f"{event.place} tells of {_place(raw)}, where no record is")
                continue
            if sha256(record.value or b"").hexdigest() != raw["sha256"]:
                found.append(f"{event.place} has another digest than the raw record {record.place}")
            # A record whose id cannot be read is known by its key.
            logged[record.topic].add((record.key or b"") if record_id is None else record_id.encode())
            if "fields" in event.data:
                found += _altered(event, record)
        for topic, ids in (self.acknowledged or {}).items():
            found += [f"{topic}: {_text(one)} was acknowledged and is not logged" for one in set(ids) - logged[topic]]
        for topic, ids in (self.sent or {}).items():
            found += [f"{topic}: {_text(one)} is logged and was never sent" for one in logged[topic] - set(ids)]
        return _told(1, found)

    def _outcomes(self) -> Iterator[Event]:
        """What ingest said about raw records, each once."""
        for topic in ("ingest.event-accepted.v1", "ingest.label-accepted.v1", "ingest.event-rejected.v1"):
            yield from self.topics.once(topic)

    # -- 2 ------------------------------------------------------------------------------------------------------------

    def every_event_once(self) -> list[Violation]:
        """2: every event id stands for one event, once; a record that was written again is the same record again."""
        told: list[Violation] = []
        by_id: dict[str, Event] = {}
        by_origin: dict[tuple[str, str, str, int | None], Event] = {}
        for topic, events in self.topics.events.items():
            found: list[str] = []
            for event in events:
                first = by_id.setdefault(event.id, event)
                if first.origin != event.origin or first.topic != topic:
                    found.append(f"{event.id} is at {first.place} and, as another event, at {event.place}")
                elif first is not event and not _is_repeat(first, event):
                    found.append(f"{event.id} says something else at {event.place} than at {first.place}")
                if event.sequence is not None:
                    before = by_origin.setdefault((topic, *event.origin), event)
                    if before.id != event.id:
                        found.append(f"{event.origin} is both {before.id} and {event.id}")
            told += _told(2, found)
        told += _told(2, self._gaps(by_origin))
        told += _told(2, self._done_twice())
        if self._asks("governance"):
            told += _told(2, self._lineage())
        return told

    def _gaps(self, by_origin: Mapping[tuple[str, str, str, int | None], Event]) -> Iterator[str]:
        """A store counts what it says without gaps; only a record of the compacted view may be gone."""
        numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
        since: dict[str, str] = {}
        for (_, source, shard, sequence), event in by_origin.items():
            numbers[source, shard].add(sequence or 0)
            since[source] = min(since.get(source, event.recorded), event.recorded)
        first_store = {source.split("/")[2]: source for source in sorted(since, key=lambda s: since[s], reverse=True)}
        kept = len(self.topics.records.get(VIEW, ()))
        compacted = sum(end - first for (topic, _), (first, end) in self.topics.ends.items() if topic == VIEW) > kept
        vector_stores = {e.source.rpartition("/")[2] for e in self.topics.once("feature.vector-computed.v1")}
        for (source, shard), seen in numbers.items():
            service, store = source.split("/")[2], source.rpartition("/")[2]
            passes_on = service == "serving" and store in vector_stores
            if passes_on or first_store[service] != source or (service == "feature" and compacted):
                continue
            missing = set(range(1, max(seen) + 1)) - seen
            if missing:
                yield f"{source} {shard} has said {sorted(missing)[:SHOWN]} of {max(seen)} and nobody has it"

    def _done_twice(self) -> Iterator[str]:
        """One fact, two ids: an effect that came twice."""
        same: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ingest.event-accepted.v1": lambda d: (d["stream"], d["event_id"]),
            "ingest.label-accepted.v1": lambda d: (d["stream"], d["label_id"]),
            "ingest.event-rejected.v1": lambda d: _place(d["raw"]),
            "feature.vector-computed.v1": lambda d: (d["model"], d["view_version"], d["event_id"]),
            "feature.dataset-committed.v1": lambda d: (d["model"], d["version"]),
            "registry.version-registered.v1": lambda d: (d["model"], d["version"]),
            "registry.gate-decided.v1": lambda d: (d["model"], d["run_id"], d["gate"]),
            "serving.prediction-made.v1": lambda d: (d["model"], d["vector_id"] or object()),
            "serving.version-activated.v1": lambda d: (d["model"], d["epoch"], d["replica"]),
            "monitor.window-measured.v1": lambda d: (d["model"], d["window_start"], d["window_end"]),
        }
        for topic, name in same.items():
            counts = Counter(name(data) for data in self.topics.data(topic))
            yield from (f"{topic} has {what} {n} times" for what, n in counts.items() if n > 1)

    def _lineage(self) -> Iterator[str]:
        """The graph has each fact of a model once, and a repeat is marked as one."""
        times = Counter(event.id for topic in self.topics.logged for event in self.topics.events.get(topic, ()))
        for model in self._models:
            ids: list[str] = []
            after: int | None = -1
            while after is not None:
                page = self.get("governance", f"/v1/models/{model}/history", after=after, limit=1000)
                ids += [step["id"] for step in page["steps"]]
                after = page["after"]
            repeated = [one for one, n in Counter(ids).items() if n > times[one]]
            yield from (f"the history of {model} has {one} more often than the topics" for one in repeated)
        for one in _sample([one for one, n in times.items() if n > 1], 20):
            shown = self.get("governance", f"/v1/events/{one}")["records"]
            marks = [record["duplicate_of"] for record in shown]
            if marks != [None] + [shown[0]["leaf"]] * (len(shown) - 1):
                yield f"the log has {one} {len(shown)} times, marked {marks}"

    # -- 3 and 4 ------------------------------------------------------------------------------------------------------

    @cached_property
    def report(self) -> dict[str, Any]:
        """What `evenkeel verify` says of the log as it lies on disk; nothing if there is none."""
        if not (self.data_dir / "keys" / "governance.pub").exists():
            return {}
        command = [
            str(Path(sys.executable).with_name("evenkeel")),
            "verify",
            "--json",
            "--data-dir",
            str(self.data_dir),
        ]
        with TemporaryDirectory() as folder:
            trusted = Path(folder) / "trusted"
            if self._trusted is not None:
                trusted.write_bytes(self._trusted)
            ended = subprocess.run(
                [*command, "--trusted", str(trusted)], capture_output=True, text=True, check=False, env=os.environ
            )
            self._trusted = trusted.read_bytes() if trusted.exists() else None
        try:
            report: dict[str, Any] = json.loads(ended.stdout)
        except ValueError:
            report = {}
        return report if "ok" in report else {"problems": [{"kind": "verify", "message": ended.stdout + ended.stderr}]}

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The leaves of the audit log as governance shows them, all of them or a sample; none without governance."""
        if not self._asks("governance"):
            return []
        size = self.get("governance", "/v1/log/checkpoint")["leaves"]
        headers = {"Authorization": f"Bearer {self.token}"}
        with (
            httpx2.Client(base_url=self.urls["governance"], headers=headers, timeout=30) as http,
            ThreadPoolExecutor(4) as threads,
        ):
            wanted = _sample(range(size), WALKED_LEAVES)
            return list(threads.map(lambda leaf: _json(http.get(f"/v1/log/leaves/{leaf}")), wanted))

    @property
    def _whole_log(self) -> bool:
        return bool(self.log) and self.log[-1]["leaf"] == len(self.log) - 1

    def log_is_complete(self) -> list[Violation]:
        """3: every record of every logged topic is a leaf, offsets contiguous per partition, as it stands in the topic."""
        found = [p["message"] for p in self.report.get("problems", ()) if p["kind"] in ("offset", "record")]
        expected = {
            place: end for place, (_, end) in self.topics.ends.items() if place[0] in self.topics.logged and end
        }
        if self.log:
            size = self.get("governance", "/v1/log/checkpoint")["leaves"]
            if size != sum(expected.values()):
                found.append(f"the log has {size} leaves, the topics had {sum(expected.values())} records")
        after: dict[tuple[str, int], int] = {}
        for leaf in self.log:
            place = leaf["topic"], leaf["partition"]
            if self._whole_log and leaf["offset"] != after.get(place, 0):
                found.append(f"leaf {leaf['leaf']} is {place} {leaf['offset']}, expected was {after.get(place, 0)}")
            after[place] = leaf["offset"] + 1
            record = self.topics.by_place.get((*place, leaf["offset"]))
            if record is not None and not _shows(leaf, record):
                found.append(f"leaf {leaf['leaf']} is not the record {record.place}")
        if self._whole_log:
            found += [f"{place}: offsets from {after.get(place, 0)} to {end} are not logged"
                      for place, end in expected.items() if after.get(place, 0) < end]  # fmt: skip
        return _told(3, found)

    def log_only_grows(self) -> list[Violation]:
        """4: every checkpoint is signed and consistent with the next; a full replay gives the same roots."""
        kinds = ("offset", "record")
        verified = [f"{p['kind']}: {p['message']}" for p in self.report.get("problems", ()) if p["kind"] not in kinds]
        found: list[str] = []
        folder = self.data_dir / "checkpoints"
        notes = [note for path in sorted(folder.glob("*.txt")) for note in signed_log.notes_in(path)]
        notes += [data["note"] for data in self.topics.data("governance.checkpoint-signed.v1")]
        if not notes:
            return _told(4, verified)
        key = signed_log.read_public_key(self.data_dir / "keys" / "governance.pub")
        roots: dict[tuple[str, int], bytes] = {}
        for text in notes:
            note = signed_log.read_note(text, key)
            if note.fault:
                found.append(f"the checkpoint over {note.size} leaves: {note.fault}")
            elif roots.setdefault((note.origin, note.size), note.root) != note.root:
                found.append(f"two checkpoints over {note.size} leaves have different roots")
        origins = {origin for origin, _ in roots}
        if len(origins) > 1:
            found.append(f"checkpoints of several logs: {sorted(origins)}")
        signed = sorted((size, root) for (_, size), root in roots.items() if size)
        if self.log:
            found += self._replayed(signed)
        return _told(4, [*found, *verified])

    def _replayed(self, signed: Sequence[tuple[int, bytes]]) -> Iterator[str]:
        leaves = [b64decode(leaf["bytes"]) for leaf in self.log]
        hashes = [signed_log.leaf_hash(leaf) for leaf in leaves]
        for leaf, hashed in zip(self.log, hashes, strict=True):
            if signed_log.shown(hashed) != leaf["leaf_hash"]:
                yield f"leaf {leaf['leaf']} has another hash than governance says"
        for size, root in signed:
            if self._whole_log and (size > len(hashes) or signed_log.root(hashes[:size]) != root):
                yield f"replaying {size} leaves does not give the root that was signed"
        for (old, old_root), (new, new_root) in _sample(list(itertools.pairwise(signed)), 20):
            answer = self.get("governance", "/v1/log/consistency", old=old, new=new)
            proof = [b64decode(node) for node in answer["proof"]]
            if signed_log.roots_by_consistency(old, new, old_root, proof) != (old_root, new_root):
                yield f"the checkpoint over {old} leaves is not proven to be the beginning of that over {new}"
        size, root = signed[-1]
        covered = [(leaf, hashed) for leaf, hashed in zip(self.log, hashes, strict=True) if leaf["leaf"] < size]
        for leaf, hashed in _sample(covered, 20):
            answer = self.get("governance", "/v1/log/inclusion", leaf=leaf["leaf"])
            proof = [b64decode(node) for node in answer["proof"]]
            found = signed_log.root_by_inclusion(hashed, leaf["leaf"], answer["size"], proof)
            if found is None or (answer["size"] == size and found != root):
                yield f"leaf {leaf['leaf']} is not proven to be in the log"

    # -- 5, 6 and 7 ---------------------------------------------------------------------------------------------------

    def one_champion(self) -> list[Violation]:
        """5: at most one champion per model at any moment, epochs 1, 2, 3 …; registry and serving say the same."""
        found: list[str] = []
        for model, changes in self._champions().items():
            epochs = [event.data["epoch"] for event in changes]
            if epochs != list(range(1, len(epochs) + 1)):
                found.append(f"{model}: the epochs are {epochs}")
            for before, after in itertools.pairwise(changes):
                if after.data["previous_version"] != before.data["version"]:
                    previous = after.data["previous_version"]
                    found.append(
                        f"{model}: epoch {after.data['epoch']} follows version {previous}, which did not answer"
                    )
            last = max(changes, key=lambda event: int(event.data["epoch"])).data
            if self._asks("registry"):
                history = self.get("registry", f"/v1/models/{model}/champion")["history"]
                active = [(row["epoch"], row["version"]) for row in history if row["active"]]
                if active != [(last["epoch"], last["version"])]:
                    found.append(f"{model}: registry has the champions {active}, the topic epoch {last['epoch']}")
            if self._asks("serving"):
                shown = {m["model"]: m["champion"] for m in self.get("serving", "/v1/models")["models"]}.get(
                    model
                ) or {}
                fallback = (last.get("rollback_target") or {}).get("version")
                if shown.get("epoch") != last["epoch"] or shown["version"] not in (last["version"], fallback):
                    found.append(f"{model}: serving answers by {shown}, the champion is of epoch {last['epoch']}")
        return _told(5, found)

    def promotions_have_evidence(self) -> list[Violation]:
        """6: no promotion without its gates or its approval; a rollback goes where its epoch named."""
        found: list[str] = []
        gates: dict[tuple[str, int], list[Event]] = defaultdict(list)
        for event in self.topics.once("registry.gate-decided.v1"):
            gates[event.data["model"], event.data["version"]].append(event)
        runs = {event.id: event.data for event in self.topics.once("trainer.run-completed.v1")}
        approvals = [e for e in self.topics.once("registry.approval-decided.v1") if e.data["approved"]]
        used: set[str] = set()
        for model, changes in self._champions().items():
            before: dict[str, Any] | None = None
            for event in changes:
                change = event.data
                what = f"{model}: epoch {change['epoch']}, version {change['version']} by {change['cause']}"
                match change["cause"]:
                    case "promotion" | "approval":
                        if change["cause"] == "approval":
                            given = [a for a in approvals if a.id not in used and _approves(a.data, change)]
                            used |= {a.id for a in given[:1]}
                            if not given:
                                found.append(f"{what}: nobody approved this package in this epoch")
                        elif change["cause_id"] not in runs:
                            found.append(f"{what}: there is no run {change['cause_id']}")
                        held = [gate for gate in gates[model, change["version"]] if _precedes(gate, event)]
                        found += (f"{what}: {why}" for why in self._ungated(held, change, before, runs))
                    case "rollback":
                        target = (before or {}).get("rollback_target") or {}
                        if (target.get("version"), target.get("package")) != (change["version"], change["package"]):
                            found.append(f"{what}: the epoch before named {target.get('version')} as the way back")
                    case _:
                        found.append(f"{what}: no gate and no approval stands behind it")
                before = change
        return _told(6, found)

    def _ungated(
        self,
        gates: Sequence[Event],
        change: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        runs: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[str]:
        decided = {gate.data["gate"]: gate.data for gate in gates if gate.data["package"] == change["package"]}
        for name in sorted(GATES - set(decided)):
            yield f"the gate {name} was not decided"
        for name, gate in decided.items():
            if not gate["passed"]:
                yield f"the gate {name} had not passed ({gate['detail']})"
        run = next((run for run in runs.values() if run["package"] == change["package"]), None)
        if run is None:
            yield "no run brought this package"
        elif before is not None and "better_than_champion" in decided:
            compared = run["comparison"] or {}
            gate = decided["better_than_champion"]
            if (run["champion"] or {}).get("digest") != before["package"] and change["cause"] == "promotion":
                yield f"it was not compared with the champion {before['package']}"
            elif (bound := compared.get("improvement_lower")) != gate["value"] or not _is_above(
                gate["value"], gate["bar"]
            ):
                yield f"the gate looked at {gate['value']} over {gate['bar']}, the run's bound is {bound}"

    def predictions_name_their_champion(self) -> list[Violation]:
        """7: no prediction by a version that was not the champion, or the named fallback, of the epoch it names."""
        allowed: dict[tuple[str, int], set[tuple[int, str]]] = defaultdict(set)
        for model, changes in self._champions().items():
            for change in (event.data for event in changes):
                for target in (change, change.get("rollback_target") or change):
                    allowed[model, change["epoch"]].add((target["version"], target["package"]))
        return _told(
            7,
            (
                f"{event.place} is by version {data['version']} in epoch {data['epoch']}, in which it did not answer"
                for event in self.topics.once("serving.prediction-made.v1")
                for data in [event.data]
                if (data["version"], data["package"]) not in allowed[data["model"], data["epoch"]]
            ),
        )

    # -- 8 and 9 ------------------------------------------------------------------------------------------------------

    @cached_property
    def _packages(self) -> dict[str, Package]:
        return {}

    def package(self, digest: str) -> Package:
        if digest not in self._packages:
            self._packages[digest] = Package(self.data_dir / "artifacts" / "sha256" / digest.removeprefix("sha256:"))
        return self._packages[digest]

    def served_bytes(self) -> list[Violation]:
        """8: what serves is what was registered, byte for byte, and the stream's answers are those of these bytes."""
        found: list[str] = []
        registered = {
            (d["model"], d["version"]): d["package"] for d in self.topics.data("registry.version-registered.v1")
        }
        for model, changes in self._champions().items():
            for change in (event.data for event in changes):
                if registered.get((model, change["version"])) != change["package"]:
                    found.append(
                        f"{model}: epoch {change['epoch']} has another package than version {change['version']}"
                    )
        for receipt in self.topics.data("serving.version-activated.v1"):
            model, version, digest = receipt["model"], receipt["version"], receipt["package"]
            what = f"{model}: {receipt['replica']} serves version {version}"
            if registered.get((model, version)) != digest:
                found.append(f"{what} with {digest}, registered is {registered.get((model, version))}")
            found += (f"{what}, but {fault}" for fault in self.package(digest).faults)
        return [*_told(8, found), *_told(8, self._misscored("stream"))]

    def requests_survive_swaps(self, answers: Iterable[Answer] = ()) -> list[Violation]:
        """9: no request fails because of a swap, and none gets the answer of one version under the name of another."""
        found = list(self._misscored("request"))
        recorded = {e.id: e.data for e in self.topics.once("serving.prediction-made.v1")}
        for number, answer in enumerate(answers):
            body = answer.body
            if answer.status != 200:
                found.append(f"request {number} got {answer.status}: {body}")
                continue
            said = recorded.get(body["prediction_id"])
            if said is None:
                found.append(f"request {number} got {body['prediction_id']}, which is not recorded")
            elif any(body[name] != said[name] for name in ("model", "version", "epoch", "score", "decision")):
                found.append(f"request {number} got {body}, recorded is {said}")
        return _told(9, found)

    def _misscored(self, origin: str) -> Iterator[str]:
        """Answers that are not what the package they name gives for the values they name."""
        vectors = {event.id: event.data["values"] for event in self.topics.once("feature.vector-computed.v1")}
        by_package: dict[str, list[Event]] = defaultdict(list)
        for event in self.topics.once("serving.prediction-made.v1"):
            if event.data["origin"] == origin:
                by_package[event.data["package"]].append(event)
        for digest, events in by_package.items():
            package = self.package(digest)
            if package.faults:
                continue
            chosen = [e for e in _sample(events, CHECKED_SCORES) if e.data["values"] or e.data["vector_id"] in vectors]
            scores = package.scores([e.data["values"] or vectors[e.data["vector_id"]] for e in chosen])
            for event, score in zip(chosen, scores, strict=True):
                if not math.isclose(event.data["score"], score, rel_tol=package.tolerance, abs_tol=package.tolerance):
                    version = event.data["version"]
                    yield f"{event.place} has the score {event.data['score']}; version {version} gives {score}"

    # -- 10 -----------------------------------------------------------------------------------------------------------

    def one_job_per_episode(self) -> list[Violation]:
        """10: one drift episode leads to at most one job, and one job to at most one version."""
        found: list[str] = []
        accepted: dict[str, list[Event]] = defaultdict(list)
        for event in self.topics.once("trainer.retrain-decided.v1"):
            if event.data["retrain"]:
                accepted[event.data["model"]].append(event)
        for model, decisions in accepted.items():
            causes = Counter(event.data["cause_id"] for event in decisions)
            found += (f"{model}: {cause} led to {n} jobs" for cause, n in causes.items() if n > 1)
            policies = {e.data["spec"]["retraining"]["cooldown"] for e in self._models.get(model, ())}
            cooldown_us = min(map(duration_us, policies), default=0)
            for before, after in itertools.pairwise(decisions):
                apart_us = time_us(after.data["as_of"]) - time_us(before.data["as_of"])
                if after.data["trigger"] != "command" and apart_us < cooldown_us:
                    found.append(
                        f"{model}: {before.data['run_id']} ({before.data['trigger']}) and {after.data['run_id']} "
                        f"({after.data['trigger']}) are {apart_us / 86_400e6:.1f} days apart, within one episode"
                    )
        wanted = {event.data["run_id"] for decisions in accepted.values() for event in decisions}
        ends = Counter(
            d["run_id"] for end in ("completed", "failed") for d in self.topics.data(f"trainer.run-{end}.v1")
        )
        found += (f"run {run} ended {n} times" for run, n in ends.items() if n > 1)
        found += (f"run {run} ended and nobody asked for it" for run in ends.keys() - wanted)
        versions = Counter(d["run_id"] for d in self.topics.data("registry.version-registered.v1"))
        found += (f"run {run} became {n} versions" for run, n in versions.items() if n > 1)
        return _told(10, found)

    # -- 11 -----------------------------------------------------------------------------------------------------------

    def windows_equal_a_naive_fold(self) -> list[Violation]:
        """11: every vector, and every tile of the online view, is what a naive fold of the accepted events gives."""
        found: list[str] = []
        vectors = {(e.data["model"], e.data["event_id"]): e for e in self.topics.once("feature.vector-computed.v1")}
        chosen = set(_sample(list(vectors), CHECKED_VECTORS))
        for model, naive in self.naive().items():
            version = self._models[model][0].data["view_version"]
            for event in self._in_order(naive.streams, self._watermark_us(naive)):
                key = (model, event.data["event_id"])
                if event.stream == naive.stream and key in chosen:
                    expected = naive.vector(event.data["fields"], event.order_us)
                    places = differences(expected, vectors[key].data["values"])
                    if places:
                        said = [vectors[key].data["values"][place] for place in places[:SHOWN]]
                        found.append(
                            f"{model}: {key[1]} has {said} in the places {places[:SHOWN]}; "
                            f"a naive fold gives {[expected[place] for place in places[:SHOWN]]}"
                        )
                if event.stream in naive.sources:
                    naive.fold(event)
            slots: dict[bytes | None, Event] = {
                e.record.key: e for e in self.topics.once(VIEW) if e.data["view"] == model
            }
            tiles = [
                (int(event.data["slot"].partition("|")[0]), event.data["tile"])
                for event in slots.values()
                if event.data["view_version"] == version
            ]
            found += (f"{model}: the view's tile {tile} of series {n} is nobody's" for n, tile in naive.strange(tiles))
        return _told(11, found)

    def naive(self) -> dict[str, Naive]:
        """Models whose windows are known from their beginning: declared once, with the streams or before them."""
        streams = self.topics.once("registry.stream-declared.v1")
        found = {}
        for model, (declared, *others) in self._models.items():
            names = {declared.data["spec"]["stream"], *declared.data["streams"]}
            if not others and all(_precedes(declared, event) for event in streams if event.data["name"] in names):
                found[model] = Naive(declared.data["spec"], declared.data["streams"])
        return found

    def _in_order(self, streams: Collection[str], before_us: int) -> list[Event]:
        accepted = [
            event
            for topic in ("ingest.event-accepted.v1", "ingest.label-accepted.v1")
            for event in self.topics.once(topic)
            if event.stream in streams and event.order_us < before_us
        ]
        return sorted(accepted, key=lambda event: (event.order_us, event.stream, event.id))

    def _watermark_us(self, naive: Naive) -> int:
        """Up to where the streams that go together with this model's have all come."""
        declared = [Naive(e.data["spec"], e.data["streams"]) for events in self._models.values() for e in events]
        together = next(group for group in groups([naive, *declared]) if naive.stream in group)
        return min(
            self._reached_us(
                "ingest.label-accepted.v1" if name.endswith("#label") else "ingest.event-accepted.v1", name
            )
            for name in together
        )

    def _reached_us(self, topic: str, stream: str) -> int:
        """The smallest watermark of a stream over the partitions of a topic."""
        marks = {partition: -(2**62) for name, partition in self.topics.ends if name == topic}
        for event in self.topics.events.get(topic, ()):
            if event.is_clock and stream in event.data["watermarks"]:
                partition = event.record.partition
                marks[partition] = max(marks[partition], time_us(event.data["watermarks"][stream]))
        return min(marks.values(), default=-(2**62))

    # -- 12 and 13 ----------------------------------------------------------------------------------------------------

    def nothing_goes_missing(self) -> list[Violation]:
        """12: what each service took in, it has processed, rejected or dead-lettered. (Governance: see 3.)"""
        return [
            violation
            for service in (
                self._ingested,
                self._vectorised,
                self._scored,
                self._decided,
                self._registered,
                self._measured,
            )
            for violation in _told(12, service())
        ]

    def _ingested(self) -> Iterator[str]:
        outcomes = Counter(_place(event.data["raw"]) for event in self._outcomes())
        dead = self._dead("ingest")
        for record in (record for topic in self.topics.raw for record in self.topics.records.get(topic, ())):
            is_heartbeat = not record.value and any(name == HEARTBEAT for name, _ in record.headers)
            count = outcomes[record.place] + (record[:3] in dead)
            if count != 1 and not (is_heartbeat and count == 0):
                yield f"ingest: the raw record {record.place} has {count} outcomes"

    def _vectorised(self) -> Iterator[str]:
        done = {(data["model"], data["event_id"]) for data in self.topics.data("feature.vector-computed.v1")}
        dead = self._dead("feature")
        if not any(self.topics.events.get("feature.vector-computed.v1", ())):
            return  # feature is not there
        for model, naive in self.naive().items():
            for event in self._in_order({naive.stream}, self._watermark_us(naive)):
                record = event.record
                key = (model, event.data["event_id"])
                if key not in done and record[:3] not in dead:
                    yield f"feature: {event.data['event_id']} ({event.place}) has no vector of {model}"

    def _scored(self) -> Iterator[str]:
        done = {data["vector_id"] for data in self.topics.data("serving.prediction-made.v1")}
        dead = self._dead("serving")
        views: dict[str, set[str]] = defaultdict(set)
        for model, changes in self._champions().items():
            views[model] |= {event.data["view_version"] for event in changes}
        answering: set[tuple[str, int]] = set()
        for event in self.topics.once("feature.vector-computed.v1"):
            record, model = event.record, event.data["model"]
            if event.id in done:
                answering.add((model, record.partition))
            elif (
                (model, record.partition) in answering
                and views[model] == {event.data["view_version"]}
                and record[:3] not in dead
            ):
                yield f"serving: the vector {event.place} of {event.data['event_id']} has no prediction"

    def _decided(self) -> Iterator[str]:
        answers = Counter(data["cause_id"] for data in self.topics.data("trainer.retrain-decided.v1"))
        dead = self._dead("trainer")
        signals = {"drift": "monitor.drift-detected.v1", "decay": "monitor.performance-degraded.v1"}
        for trigger, topic in signals.items():
            for event in self.topics.once(topic):
                declared = self._models.get(event.data["model"], [])
                policies = [trigger in d.data["spec"]["retraining"]["triggers"] for d in declared]
                record = event.record
                if record[:3] in dead or not policies or not all(policies):
                    continue
                if answers[event.id] != 1:
                    yield f"trainer: {trigger} {event.id} has {answers[event.id]} answers"
        ended = {d["run_id"] for end in ("completed", "failed") for d in self.topics.data(f"trainer.run-{end}.v1")}
        for data in self.topics.data("trainer.retrain-decided.v1"):
            if data["retrain"] and data["run_id"] not in ended:
                yield f"trainer: run {data['run_id']} of {data['model']} has not ended"

    def _registered(self) -> Iterator[str]:
        packages = {(d["model"], d["package"]) for d in self.topics.data("registry.version-registered.v1")}
        gates = Counter((d["model"], d["run_id"]) for d in self.topics.data("registry.gate-decided.v1"))
        dead = self._dead("registry")
        for event in self.topics.once("trainer.run-completed.v1"):
            run, record = event.data, event.record
            if record[:3] in dead or run["model"] not in self._models:
                continue
            if (run["model"], run["package"]) not in packages or gates[run["model"], run["run_id"]] < len(GATES):
                yield f"registry: run {run['run_id']} of {run['model']} was not registered and decided"

    def _measured(self) -> Iterator[str]:
        """Monitor's smallest windows hold each vector and each answer of the stream once."""
        measured: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        lengths = {
            model: min(map(duration_us, declared[0].data["spec"]["monitoring"]["windows"]))
            for model, declared in self._models.items()
            if len(declared) == 1 and model in self.naive()
        }
        for data in self.topics.data("monitor.window-measured.v1"):
            start_us, end_us = time_us(data["window_start"]), time_us(data["window_end"])
            if end_us - start_us == lengths.get(data["model"]):
                measured[data["model"]][start_us] = data
        dead = self._dead("monitor")
        for model, windows in measured.items():
            reached_us = max(windows) + lengths[model]
            for topic, name in (
                ("feature.vector-computed.v1", "vectors"),
                ("serving.prediction-made.v1", "predictions"),
            ):
                counts = Counter(
                    event.order_us - event.order_us % lengths[model]
                    for event in self.topics.once(topic)
                    if event.data["model"] == model
                    and event.data.get("origin", "stream") == "stream"
                    and event.record[:3] not in dead
                )
                for start_us in sorted(counts.keys() | windows.keys()):
                    counted = windows.get(start_us, {}).get(name, 0)
                    if start_us < reached_us and counted != counts[start_us]:
                        where = windows.get(start_us, {}).get("window_start", start_us)
                        yield f"monitor: {model} from {where} on has {counts[start_us]} {name}, {counted} were measured"

    def originals_are_kept(self) -> list[Violation]:
        """13: dead letters, and rejected records, carry the original bytes."""
        found: list[str] = []
        for topic in [name for name in self.topics.records if name.endswith(".record-dead-lettered.v1")]:
            for event in self.topics.once(topic):
                data = event.data
                found += self._lost(event, data, data["key"], data["value"], data["headers"])
        for event in self.topics.once("ingest.event-rejected.v1"):
            data = event.data
            too_large = data["original_value"] is None and "too large to be kept" in data["reason"]
            if not too_large:
                found += self._lost(
                    event, data["raw"], data["original_key"], data["original_value"], data["original_headers"]
                )
        return _told(13, found)

    def _lost(
        self, event: Event, place: Mapping[str, Any], key: str | None, value: str | None, headers: Any
    ) -> list[str]:
        record = self.topics.by_place.get((place["topic"], place["partition"], place["offset"]))
        if record is None:
            first = self.topics.ends.get((place["topic"], place["partition"]), (0, 0))[0]
            return [] if place["offset"] < first else [f"{event.place} is about {_place(place)}, where no record is"]
        kept = (_decoded(key), _decoded(value), [(name, _decoded(text)) for name, text in headers])
        original = (record.key, record.value, [(name, text or b"") for name, text in record.headers])
        return [] if kept == original else [f"{event.place} keeps other bytes than {record.place} has"]

    # -- 14, 15, 16 and 18: promises about what somebody does ---------------------------------------------------------

    def at_rest(self, within_seconds: float = 60.0) -> list[Violation]:
        """14: lag 0, outboxes empty and all ready within the time from now (the last fault has just healed). The online view
        is written a while behind what it tells, which no gauge shows: nothing may have come there for as long."""
        began = calm_since = time.monotonic()
        view: dict[tuple[str, int], tuple[int, int]] = {}
        while True:
            restless, found = self._restless(), self._view_ends()
            if restless or found != view:
                calm_since, view = time.monotonic(), found
            if restless and time.monotonic() > began + within_seconds:
                return _told(14, (f"after {within_seconds:g} s {what}" for what in restless))
            if time.monotonic() > calm_since + VIEW_BEHIND_SECONDS:
                return []
            time.sleep(0.2)

    def _view_ends(self) -> dict[tuple[str, int], tuple[int, int]]:
        return {place: end for place, end in end_offsets(self.broker).items() if place[0] == VIEW}

    def _restless(self) -> list[str]:
        found: list[str] = []
        for service, url in self.urls.items():
            try:
                with httpx2.Client(base_url=url, timeout=5) as http:
                    ready, metrics = http.get("/health/ready"), http.get("/metrics").text
            except httpx2.HTTPError as error:
                found.append(f"{service} does not answer ({type(error).__name__})")
                continue
            if ready.status_code != 200:
                found.append(f"{service} is not ready: {ready.text[:200]}")
            for line in metrics.splitlines():
                name, _, value = line.rpartition(" ")
                if name.startswith(("evenkeel_consumer_lag_records", "evenkeel_outbox_rows")) and float(value) != 0:
                    found.append(f"{service}: {name} is {value}")
        return found or self._lag()

    def _lag(self) -> list[str]:
        """By what the broker knows of the consumers."""
        admin = AdminClient({"bootstrap.servers": self.broker, "log_level": 0})
        ends = end_offsets(self.broker)
        listed = admin.list_consumer_groups(request_timeout=10).result().valid
        names = [group.group_id for group in listed if group.group_id.startswith("evenkeel-")]
        found = []
        for name in names:
            asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result()
            for one in asked.topic_partitions:
                end = ends.get((one.topic, one.partition), (0, 0))[1]
                if 0 <= one.offset < end:
                    found.append(f"{name} is at {one.offset} of {end} in {one.topic}/{one.partition}")
        return found

    def flat(self, what: str, points: Sequence[tuple[float, float]], may_grow: float) -> list[Violation]:
        """15: (seconds, value) samples over a soak show no slope: over their span the fitted line rises by at most so much."""
        seconds, values = np.array(points).T
        rise = float(np.polyfit(seconds, values, 1)[0] * (seconds[-1] - seconds[0]))
        return _told(15, [f"{what} grew by {rise:g} in {seconds[-1] - seconds[0]:g} s"] if rise > may_grow else [])

    def measure(self, pids: Mapping[str, int]) -> dict[str, float]:
        """What must stay flat, now: resident bytes and open files of each process, bytes of each write-ahead log."""
        found: dict[str, float] = {}
        for name, pid in pids.items():
            status = Path(f"/proc/{pid}/status").read_text()
            found[f"{name} resident bytes"] = int(status.split("VmRSS:")[1].split()[0]) * 1024
            found[f"{name} open files"] = len(os.listdir(f"/proc/{pid}/fd"))
        for path in self.data_dir.glob("*.db-wal"):
            found[f"{path.name} bytes"] = path.stat().st_size
        return found

    def stopped(self, exits: Mapping[str, Exit], within_seconds: float = 10.0) -> list[Violation]:
        """16: SIGTERM ends a process with exit code 0 within 10 s (15 s with a dead broker)."""
        return _told(
            16,
            (
                f"{name} ended with {'no code, killed' if end.code is None else end.code} after {end.seconds:.1f} s"
                for name, end in exits.items()
                if end.code != 0 or end.seconds > within_seconds
            ),
        )

    def state(self) -> dict[str, Any]:
        """What calls could change: where each topic ends, what registry knows, what files are there. Ask it at rest."""
        ends = {
            place: end for place, (_, end) in end_offsets(self.broker).items() if not place[0].startswith("governance.")
        }
        found: dict[str, Any] = {f"{topic}/{partition}": end for (topic, partition), end in ends.items()}
        if self._asks("registry"):
            found["streams"] = self.get("registry", "/v1/streams")
            found["models"] = models = self.get("registry", "/v1/models")["models"]
            for model in (model["model"] for model in models):
                for part in ("versions", "champion", "approvals"):
                    found[f"{model} {part}"] = self.get("registry", f"/v1/models/{model}/{part}")
        for folder in ("artifacts", "keys"):
            found[folder] = sorted(str(path) for path in (self.data_dir / folder).rglob("*"))
        return found

    def unchanged(self, before: Mapping[str, Any]) -> list[Violation]:
        """18: calls that were refused since `before` was taken with `state` have changed nothing."""
        restless = self.at_rest()
        after = self.state()
        changed = (name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        return [*restless, *_told(18, (f"{name}: {before.get(name)} became {after.get(name)}" for name in changed))]

    CHECKS: ClassVar[tuple[Callable[[Oracle], list[Violation]], ...]] = (
        acknowledged_is_logged,
        every_event_once,
        log_is_complete,
        log_only_grows,
        one_champion,
        promotions_have_evidence,
        predictions_name_their_champion,
        served_bytes,
        requests_survive_swaps,
        one_job_per_episode,
        windows_equal_a_naive_fold,
        nothing_goes_missing,
        originals_are_kept,
    )


class Package:
    """A model package as it lies on disk, trusted in nothing but the digest that names it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.faults = list(self._faults())

    def _faults(self) -> Iterator[str]:
        try:
            manifest = (self._folder / "manifest.json").read_bytes()
        except FileNotFoundError:
            yield f"there is no package {self._folder.name}"
            return
        if sha256(manifest).hexdigest() != self._folder.name:
            yield f"the manifest of {self._folder.name} has another digest"
            return
        self._manifest: dict[str, Any] = json.loads(manifest)
        listed = self._manifest["files"]
        for name, of in listed.items():
            path = self._folder / name
            content = path.read_bytes() if path.exists() else b""
            if (sha256(content).hexdigest(), len(content)) != (of["sha256"], of["size_bytes"]):
                yield f"{name} of {self._folder.name} is not the file that was registered"
        for path in self._folder.iterdir():
            if path.name not in (*listed, "manifest.json", "signature.json"):
                yield f"{path.name} of {self._folder.name} was not registered"

    @cached_property
    def tolerance(self) -> float:
        return float(json.loads((self._folder / "golden.json").read_bytes())["tolerance"])

    def scores(self, rows: Sequence[Sequence[float | None]]) -> list[float]:
        """What the registered ONNX graph answers."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        if not rows:
            return []
        asked = self._manifest["onnx"]
        matrix = np.array([[math.nan if v is None else v for v in row] for row in rows], np.float32)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(self._folder / "model.onnx"), options, ["CPUExecutionProvider"])
        found: list[float] = session.run([asked["output"]], {asked["input"]: matrix})[0][:, asked["column"]].tolist()
        return found


def _told(invariant: int, details: Iterable[str]) -> list[Violation]:
    """The first few, and how many there are."""
    found = list(details)
    more = [f"… and {len(found) - SHOWN} more like these"] if len(found) > SHOWN else []
    return [Violation(invariant, detail) for detail in [*found[:SHOWN], *more]]


def _sample(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[number * (len(items) - 1) // (most - 1)] for number in range(most)]


def _json(answer: httpx2.Response) -> Any:
    if answer.status_code != 200:
        raise LookupError(f"{answer.url} answered {answer.status_code}: {answer.text[:300]}")
    return answer.json()


def _place(raw: Mapping[str, Any]) -> str:
    return f"{raw['topic']}/{raw['partition']}/{raw['offset']}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _is_repeat(first: Event, again: Event) -> bool:
    """The same record again, to the byte; a repeated answer of the stateless scorer may be another version's."""
    if again.data.get("origin") == "stream" and first.data.get("vector_id") == again.data.get("vector_id"):
        return True
    return (first.record.key, first.record.value) == (again.record.key, again.record.value)


def _altered(event: Event, record: Record) -> list[str]:
    """Accepted fields that are not what the producer's JSON says; integers may be written as numbers."""
    try:
        written = json.loads(record.value or b"")
        written = written["data"] if "specversion" in written else written
    except (ValueError, TypeError, KeyError):
        return [f"{event.place} was accepted, but {record.place} is no JSON object"]
    headers = dict(record.headers)
    if "ce_id" in headers:
        return []  # id and time may stand in its headers
    fields = event.data["fields"]
    return [
        f"{event.place} has {name} {value!r}, the producer wrote {written.get(name)!r}"
        for name, value in fields.items()
        if value != written.get(name)
    ]


def _approves(approval: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    same = all(approval[name] == change[name] for name in ("model", "version", "package"))
    return same and approval["epoch"] == change["epoch"] - 1


def _precedes(first: Event, then: Event) -> bool:
    """As their service said them, or by the broker's clock if they are not of one service."""
    if (first.source, first.shard) == (then.source, then.shard):
        return (first.sequence or 0) < (then.sequence or 0)
    return first.record.timestamp <= then.record.timestamp


def _shows(leaf: Mapping[str, Any], record: Record) -> bool:
    if leaf["payload"] is None:
        value = _decoded(leaf.get("value_base64")) or b""
        is_same = value == (record.value or b"") or record.value == b"null"
    else:
        is_same = leaf["payload"] == json.loads(record.value or b"null")
    headers = {name: value.decode("utf-8", "backslashreplace") for name, value in record.headers if value is not None}
    return is_same and leaf["headers"] == headers


def _is_above(value: float | None, bar: float | None) -> bool:
    return value is not None and bar is not None and value > bar
