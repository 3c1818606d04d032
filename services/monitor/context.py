"""What the handlers see: the models' measuring in memory, and the facts that it depends on."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from evenkeel.contracts.declaration import ModelSpec
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ids import label_stream
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.serving import PredictionMade
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.errors import NotYet, Retry
from evenkeel.libs.features import DeclaredModel, read_model
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.metrics import metrics_of
from evenkeel.libs.packages.errors import PackageError, PackageNotFound
from evenkeel.libs.packages.package import read_package
from evenkeel.libs.service import Context
from evenkeel.libs.sketches.profile import Profile
from evenkeel.libs.store.protocol import Transaction
from evenkeel.services.monitor.domain.measuring import Measuring
from evenkeel.services.monitor.domain.policy import TASKS, Baseline, Champion, Policy
from evenkeel.services.monitor.settings import MonitorSettings
from evenkeel.services.monitor.store import MonitorStore

log = structlog.get_logger(__name__)

Group = frozenset[tuple[type[Payload], str]]


def policy_of(declared: DeclaredModel) -> Policy:
    """The declaration's words as the domain takes them; raises ValueError for one that it does not know."""
    spec = declared.spec
    task, metric = TASKS.get(spec.task), spec.metric_name
    if task is None or metric not in [known.name for known in metrics_of(task)]:
        raise ValueError(f"no models of task {spec.task} are measured here by {spec.metric_name}; upgrade this service")
    return Policy(
        task=task,
        metric=metric,
        label=declared.rule,
        horizon_us=declared.label.horizon_us,
        monitoring=spec.monitoring,
        bake_us=spec.promotion.bake_us,
    )


class MonitorContext(Context):
    """All of it is rebuilt by `load`."""

    own: MonitorSettings

    def __init__(self) -> None:
        self.models: dict[str, Measuring] = {}
        self._policies: dict[str, dict[int, Policy]] = {}
        self._champions: dict[str, dict[int, Champion]] = {}
        self._members: dict[Group, tuple[str, ...]] = {}
        self._stream_of: dict[str, str] = {}
        self._left_out: set[tuple[str, int]] = set()
        """(model, offset) of the declarations that cannot be measured by."""
        self.unmeasured: set[str] = set()
        """Models whose vectors name such a declaration: what comes of them is not folded."""

    @property
    def store(self) -> MonitorStore:
        return MonitorStore(self.tx.connection)

    # -- loading ------------------------------------------------------------------------------------------------------

    def load(self, tx: Transaction) -> None:
        """Snapshots, then what was logged since."""
        store = MonitorStore(tx.connection)
        self.models, self._policies, self._champions, self._stream_of = {}, {}, {}, {}
        self._left_out, self.unmeasured = set(), set()
        for offset, text in store.declarations("model"):
            self._take(offset, ModelDeclared.model_validate_json(text))
        for name, policies in self._policies.items():
            stored = store.read_model(name)
            epoch = -1 if stored is None or stored.state.epoch is None else stored.state.epoch
            for number in store.epochs(name, epoch):
                self._champions[name][number] = self._champion(store, name, number)
            model = Measuring(name, policies, self._champions[name], None if stored is None else stored.state)
            if stored is not None:
                model.restore(stored.slots, stored.parts, stored.entries)
            self.models[name] = model
        self._regroup()

    def _take(self, offset: int, declared: ModelDeclared) -> None:
        try:
            model = read_model(declared.name, declared.spec, declared.streams)
            policy = policy_of(model)
        except ValueError as error:
            log.error("a declaration is left out", model=declared.name, declaration=offset, reason=str(error))
            self._left_out.add((declared.name, offset))
            return
        self._policies.setdefault(declared.name, {})[offset] = policy
        self._champions.setdefault(declared.name, {})
        self._stream_of[declared.name] = model.spec.stream

    def declare(self, offset: int, declared: ModelDeclared) -> None:
        """Measure this model from here on, or under another policy once vectors name this declaration."""
        name = declared.name
        self._take(offset, declared)
        if name in self._policies and name not in self.models:
            self.models[name] = Measuring(name, self._policies[name], self._champions[name])
        self._regroup()

    # -- groups -------------------------------------------------------------------------------------------------------

    def _regroup(self) -> None:
        by_stream: dict[str, list[str]] = {}
        for model, stream in sorted(self._stream_of.items()):
            by_stream.setdefault(stream, []).append(model)
        self._members = {
            frozenset(
                {(LabelAccepted, label_stream(stream))}
                | {(payload, model) for model in models for payload in (PredictionMade, VectorComputed)}
            ): tuple(models)
            for stream, models in by_stream.items()
        }

    def merge_groups(self) -> Iterable[Group]:
        """One group per stream with models: its labels, and the vectors and predictions of all of them."""
        return self._members.keys()

    def members(self, group: Group) -> tuple[str, ...]:
        """The models of a group, by name."""
        return self._members[group]

    # -- facts that records name --------------------------------------------------------------------------------------

    def require_declaration(self, model: str, offset: int) -> bool:
        """Know the declaration that a vector names before it is folded. False if this release cannot measure by it."""
        if (model, offset) in self._left_out:
            return False
        if offset not in self._policies[model]:
            raise NotYet(f"declaration {offset} of model {model} has not been read yet")
        return True

    def require_champion(self, model: str, epoch: int) -> bool:
        """Know an epoch's champion before its first prediction is folded. False if its profile cannot be used."""
        if epoch in self._champions[model]:
            return True
        store = self.store
        found = store.champion(model, epoch)
        if found is None:
            raise NotYet(f"champion of epoch {epoch} of model {model} has not been read yet")
        changed = ChampionChanged.model_validate_json(found[0])
        if changed.run_id is not None and store.evidence(model, changed.package) is None:
            raise NotYet(f"run {changed.run_id} of model {model} has not been read yet")
        if found[1] is None:
            profile = self._read_profile(changed)
            store.put_profile(model, epoch, None if profile is None else profile.model_dump_json())
        champion = self._champion(store, model, epoch)
        self._champions[model][epoch] = champion
        return champion.profile is not None

    def _read_profile(self, changed: ChampionChanged) -> Profile | None:
        """From the content-addressed store, every byte verified. What is not there yet may still come."""
        try:
            keys = verification_keys(self.settings.keys)
            return read_package(self.settings.data_dir / "artifacts", changed.package, keys).profile
        except (PackageNotFound, OSError) as error:
            raise Retry(f"profile of {changed.package}: {error}") from error
        except PackageError:
            return None

    @staticmethod
    def _champion(store: MonitorStore, model: str, epoch: int) -> Champion:
        found = store.champion(model, epoch)
        assert found is not None
        changed = ChampionChanged.model_validate_json(found[0])
        proof = store.evidence(model, changed.package)
        return Champion(
            epoch=epoch,
            version=changed.version,
            view_version=changed.view_version,
            profile=Profile.model_validate_json(found[1]) if found[1] else None,
            baseline=None if proof is None else _baseline(RunCompleted.model_validate_json(proof), store, model),
        )


def _baseline(run: RunCompleted, store: MonitorStore, model: str) -> Baseline | None:
    """The candidate's metric on the run's evaluation rows, under the metric of the declaration it was trained for."""
    for offset, text in reversed(store.declarations("model")):
        if offset == run.declaration:
            name = ModelSpec.model_validate(ModelDeclared.model_validate_json(text).spec).metric_name
            value = run.candidate.metrics.get(name)
            return None if value is None else Baseline(value, run.evaluation_rows)
    return None
