"""Bugs that a test must notice: each is planted in a copy of the code, and the test that is about its line must turn red.

`make mutants` plants all of them; `python -m tests.mutants 3 7` these two. It fails if a mutant survives, if its test is
red without it, or if its text does not stand exactly once in its file (tests/contract/test_mutants.py says that at once).

A line that decides something, and that no test would miss, belongs here together with the test that it lacked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

ROOT: Final = Path(__file__).parents[1]
COPIED: Final = ("contracts", "deploy", "docs", "evenkeel", "libs", "services", "tests", "pyproject.toml")
JOBS: Final = max(1, min(4, (os.cpu_count() or 2) // 2))
TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` becomes `new` in `file`; `test`, below tests/, must notice."""

    file: str
    old: str
    new: str
    test: str


REGISTRY: Final = "unit/registry/test_handlers.py::"
MONITOR: Final = "unit/monitor/"
RUNTIME: Final = "unit/runtime/"
TRANSACTION: Final = RUNTIME + "test_transaction.py::"
MERGE: Final = RUNTIME + "test_merge.py::"

MUTANTS: Final = (
    # -- which model answers --
    Mutant(
        "services/registry/domain/gates/better_than_champion.py",
        "compared.improvement_lower > policy.margin",
        "compared.improvement > policy.margin",
        "suites/test_gates.py::test_it_alone_refuses_its_shortcoming_and_says_why",
    ),
    Mutant(
        "services/registry/domain/gates/better_than_champion.py",
        "if compared_with != champion.package:",
        "if False:",
        "suites/test_gates.py::test_it_alone_refuses_its_shortcoming_and_says_why",
    ),
    Mutant(
        "services/registry/domain/gates/better_than_champion.py",
        "if compared.confidence < policy.confidence:",
        "if False:",
        "suites/test_gates.py::test_it_alone_refuses_its_shortcoming_and_says_why",
    ),
    Mutant(
        "services/registry/domain/promotion.py",
        'policy.risk == "automatic" and state != "quarantined"',
        'policy.risk == "automatic"',
        "unit/registry/test_gates.py::test_what_follows_from_the_gates",
    ),
    Mutant(
        "services/registry/handlers.py",
        'if previous and change.cause != "rollback" else None',
        "if previous else None",
        REGISTRY + "test_only_the_champion_that_the_signal_is_about_is_rolled_back_and_only_on_trial",
    ),
    Mutant(
        "services/registry/rebuild.py",
        "len(gates) < gates[0].data.of",
        "len(gates) < gates[0].data.of - 1",
        "unit/registry/test_rebuild.py::test_a_run_counts_when_all_of_its_gates_were_said",
    ),
    Mutant(
        "libs/metrics/metric.py",
        "return value - over if self.higher_is_better else over - value",
        "return value - over",
        "unit/test_promotion.py::test_the_better_model_answers",
    ),
    Mutant(
        "libs/metrics/compare.py",
        "improvement_lower=improvement - reach,",
        "improvement_lower=improvement - reach if metric.higher_is_better else -improvement - reach,",
        "suites/test_metrics.py::test_the_standard_error_agrees_with_the_bootstrap",
    ),
    # -- what a model is trained on --
    Mutant(
        "services/trainer/domain/decision.py",
        "cut.cut_us <= asked.time_us and ",
        "",
        "unit/trainer/test_decision.py::test_drift_leads_to_a_run_on_the_last_cut_before_it",
    ),
    Mutant(
        "services/trainer/domain/decision.py",
        "recent >= policy.budget_per_day",
        "recent > policy.budget_per_day",
        "unit/trainer/test_decision.py::test_a_budget_counts_runs_within_a_day",
    ),
    Mutant(
        "services/trainer/domain/split.py",
        "is_training = (label < cut) & (event < cut)",
        "is_training = (event < cut)",
        "unit/trainer/test_split.py::test_labels_known_before_the_cut_train_and_events_after_it_evaluate",
    ),
    Mutant(
        "services/trainer/domain/split.py",
        "max(cut, unseen_from_us) if unseen_from_us is not None else cut",
        "cut",
        "unit/trainer/test_split.py::test_the_window_starts_where_the_champion_has_seen_nothing",
    ),
    Mutant(
        "services/trainer/domain/selection.py",
        "known = older[table.label_time_us[older] < cut_us]",
        "known = older",
        "unit/trainer/test_training.py::test_the_choice_uses_no_label_that_came_after_its_own_cut",
    ),
    # -- windows and joins --
    Mutant(
        "libs/features/state.py",
        "if tiles and start_us < tiles[-1].start_us:",
        "if False:",
        "unit/features/test_state.py::test_a_late_record_still_counts_and_does_not_become_the_last",
    ),
    Mutant(
        "libs/features/state.py",
        "if watermark_us - group.swept_us < group.sweep_every_us:",
        "if False:",
        "unit/features/test_state.py::test_entities_are_looked_through_once_a_window",
    ),
    Mutant(
        "services/feature/domain/view.py",
        "if waiting is None or order_us > waiting.time_us + self.horizon_us:",
        "if waiting is None:",
        "unit/feature/test_view.py::test_a_label_beyond_the_horizon_makes_no_row",
    ),
    Mutant(
        "services/ingest/domain/stream.py",
        'if fault.rule == "duplicate":',
        "if False:",
        "unit/ingest/test_handlers.py::test_a_repeat_moves_time_like_the_first_one",
    ),
    Mutant(
        "services/serving/domain/dataplane.py",
        "score >= threshold)",
        "score > threshold)",
        "unit/serving/test_dataplane.py::test_the_same_rows_get_the_same_answer_whatever_they_come_by",
    ),
    Mutant(
        "services/trainer/store.py",
        "where(cuts.c.cut_us <= at_us)",
        "where(cuts.c.cut_us < at_us)",
        "unit/trainer/test_store.py::test_what_is_asked_for_decides_like_everything_there_is",
    ),
    Mutant(
        "services/trainer/migrations/0001_initial.py",
        "sqlite_where=sa.text(\"state IN ('queued', 'running')\")",
        "sqlite_where=sa.text(\"state IN ('queued')\")",
        "unit/test_migrations.py::test_indexes_have_the_conditions_that_the_tables_say",
    ),
    Mutant(
        "services/ingest/domain/stream.py",
        "if own_us is not None and own_us > reference_us:",
        "if False:",
        "unit/ingest/test_stream.py::test_a_partition_that_is_read_first_is_not_ahead_of_time",
    ),
    # -- drift and decay --
    Mutant(
        "services/monitor/domain/decay.py",
        "math.sqrt(1.0 + len(rows) / max(baseline.n, 1))",
        "1.0",
        MONITOR + "test_detectors.py::test_the_decision_on_decay_by_hand",
    ),
    Mutant(
        "services/monitor/domain/drift.py",
        "bound = SIGNIFICANCE / max(len(shifts), 1)",
        "bound = SIGNIFICANCE",
        MONITOR + "test_detectors.py::test_the_error_rate_is_shared_among_all_comparisons",
    ),
    Mutant(
        "services/monitor/domain/drift.py",
        "if self.rise is None and change.dropped",
        "if change.dropped",
        MONITOR + "test_detectors.py::test_a_rise_upon_a_rise_is_told_from_where_the_first_one_began",
    ),
    Mutant(
        "services/monitor/domain/measuring.py",
        "within = state.activated_us <= span.start_us",
        "within = True",
        MONITOR + "test_measuring.py::test_drift_is_judged_on_a_window_that_is_all_the_champions",
    ),
    Mutant(
        "services/monitor/domain/measuring.py",
        "in_bake = end_us <= state.activated_us + policy.bake_us",
        "in_bake = True",
        MONITOR + "test_measuring.py::test_a_champion_that_gets_worse_is_signalled_and_not_again_within_the_cooldown",
    ),
    Mutant(
        "services/monitor/domain/joins.py",
        "if prediction is not None and order_us <= prediction.time_us + self.horizon_us:",
        "if prediction is not None:",
        MONITOR + "test_joins.py::test_a_label_at_the_horizon_counts_and_one_after_it_does_not",
    ),
    Mutant(
        "libs/drift/homogeneity.py",
        " / effects\n",
        "\n",
        "suites/test_drift_statistics.py::test_without_a_change_false_alarms_are_as_rare_as_stated",
    ),
    Mutant(
        "libs/clusters.py",
        "residual).sum(axis=0) * clusters / (clusters - 1)",
        "residual).sum(axis=0)",
        "unit/test_clusters.py::test_design_effect_by_hand",
    ),
    Mutant(
        "libs/clusters.py",
        "np.square(sums).sum() * clusters / (clusters - 1)",
        "np.square(sums).sum()",
        "unit/test_clusters.py::test_clustered_standard_error_by_hand",
    ),
    # -- the audit log --
    Mutant(
        "libs/audit/merkle.py",
        "if node & 1 or node == last:\n            result = node_hash(sibling, result)",
        "if node & 1:\n            result = node_hash(sibling, result)",
        "properties/test_merkle.py::test_inclusion_proofs_of_the_reference_trees",
    ),
    Mutant(
        "libs/audit/merkle.py",
        "return last == 0 and old == old_root and new == new_root",
        "return last == 0 and new == new_root",
        "properties/test_merkle.py::test_consistency_proof_verifies_and_nothing_else_does",
    ),
    # -- the merge --
    Mutant(
        "libs/runtime/merge.py",
        "while heap and heap[0][0] < watermark_us:",
        "while heap and heap[0][0] <= watermark_us:",
        MERGE + "test_a_record_at_the_watermark_waits_for_its_equals",
    ),
    Mutant(
        "libs/runtime/merge.py",
        "return ahead - behind",
        "return ahead",
        MERGE + "test_only_a_partition_on_which_every_stream_is_ahead_may_wait",
    ),
    Mutant(
        "libs/runtime/merge.py",
        "order_us = self._released_us[group]",
        "pass",
        MERGE + "test_a_record_below_what_was_released_takes_its_turn_at_the_watermark",
    ),
    Mutant(
        "libs/runtime/merging.py",
        "if added.pop(place, None) is None]",
        "if added.pop(place, None)]",
        TRANSACTION + "test_what_may_not_be_released_yet_is_held_over_a_restart",
    ),
    Mutant(
        "libs/runtime/merging.py",
        "if reason is None and (group, key) not in self._parked:",
        "if reason is None:",
        TRANSACTION + "test_a_key_is_parked_in_order_and_released_in_order",
    ),
    # -- the transaction --
    Mutant(
        "libs/runtime/transaction.py",
        "tx.move_positions(batch.moves)",
        "pass",
        TRANSACTION + "test_a_position_that_somebody_else_moved_undoes_the_whole_batch",
    ),
    Mutant(
        "libs/runtime/transaction.py",
        "        if self._is_stale:\n            self.load()",
        "        if False:\n            self.load()",
        TRANSACTION + "test_what_waits_right_behind_a_transaction_that_failed_sees_no_cache_of_it",
    ),
    Mutant(
        "libs/runtime/transaction.py",
        "if failed > STORM_RATIO * STORM_WINDOW:",
        "if failed > 2 * STORM_RATIO * STORM_WINDOW:",
        TRANSACTION + "test_a_storm_stops_before_it_fills_the_dead_letters",
    ),
    Mutant(
        "libs/runtime/repeats.py",
        "if sequence <= found.get(key, self._marks.get(key, 0)):",
        "if sequence < found.get(key, self._marks.get(key, 0)):",
        TRANSACTION + "test_a_repeat_of_one_origin_is_known_at_another_offset_in_the_batch_and_after_a_restart",
    ),
    Mutant(
        "libs/runtime/repeats.py",
        "for source, shard, topic, n in marks if shard == _SEALED}",
        "for source, shard, topic, n in marks if False}",
        TRANSACTION + "test_a_sealed_source_is_ignored_behind_its_seal_and_heard_before_it",
    ),
    Mutant(
        "libs/runtime/lease.py",
        "tx.hold_lease(self._owner, self._epoch, self._clock.now_us() + LEASE_US)",
        "pass",
        TRANSACTION + "test_whoever_lost_the_lease_writes_nothing",
    ),
    Mutant(
        "libs/runtime/intake.py",
        "if record.offset < (hi if hi is not None else lo or 0):",
        "if False:",
        TRANSACTION + "test_a_batch_that_is_read_again_is_passed_over_by_its_offsets",
    ),
    Mutant(
        "libs/runtime/decoding.py",
        "if holds_nul(value):",
        "if False:",
        TRANSACTION + "test_a_record_that_cannot_be_used_is_a_dead_letter_with_its_bytes_and_the_reason",
    ),
    Mutant(
        "libs/runtime/dead_letters.py",
        "if size > KEPT_BYTES:",
        "if False:",
        TRANSACTION + "test_a_record_too_large_to_be_kept_is_named",
    ),
    Mutant(
        "libs/runtime/handling.py",
        "if len(waiting) == len(left):",
        "if waiting:",
        TRANSACTION + "test_a_fact_may_stand_before_the_one_that_it_names",
    ),
    Mutant(
        "libs/runtime/publishing.py",
        "        for _ in self._deleting:\n            self._rows.popleft()",
        "        self._rows.clear()",
        RUNTIME + "test_publishing.py::test_a_row_that_is_acknowledged_meanwhile_waits_for_the_next_transaction",
    ),
    # -- what the loop does about a fault --
    Mutant(
        "libs/runtime/attempt.py",
        "if failures >= TRIES:",
        "if failures > TRIES:",
        RUNTIME + "test_attempt.py::test_a_record_is_poisoned_at_the_third_failure_and_the_next_one_is_counted_anew",
    ),
    Mutant(
        "libs/runtime/attempt.py",
        "return offset < self._fact_ends.get((topic, partition), offset + 1)",
        "return True",
        RUNTIME + "test_attempt.py::test_facts_are_known_of_what_is_not_a_fact_and_of_facts_before_the_end",
    ),
    Mutant(
        "libs/runtime/consuming.py",
        "if not attempt.failed():",
        "if attempt.failed():",
        TRANSACTION + "test_a_fact_that_its_handler_cannot_take_is_a_dead_letter_after_three_tries",
    ),
    Mutant(
        "libs/runtime/waiting.py",
        "self._next_seconds = min(self._next_seconds * 2, MOST_SECONDS)",
        "self._next_seconds *= 2",
        RUNTIME + "test_waiting.py::test_waits_double_up_to_the_longest",
    ),
    Mutant(
        "libs/runtime/writer.py",
        "self.positions |= committed.positions",
        "pass",
        RUNTIME + "test_commands.py::test_the_loop_knows_of_positions_what_is_committed",
    ),
    Mutant(
        "libs/runtime/commands.py",
        'if self.phase == "rebuilding":',
        "if False:",
        RUNTIME + "test_commands.py::test_there_are_no_commands_before_the_store_is_loaded_or_while_it_is_rebuilt",
    ),
    Mutant(
        "libs/runtime/assignment.py",
        "reached[tp] = max(reached[tp], record.offset + 1)",
        "reached[tp] = record.offset + 1",
        RUNTIME + "test_parts.py::test_facts_are_read_to_their_end_by_what_was_read_before_and_what_is_at_hand",
    ),
    Mutant(
        "libs/runtime/housekeeping.py",
        "if self._unanswered < UNANSWERED:",
        "if self._unanswered <= UNANSWERED:",
        RUNTIME + "test_parts.py::test_a_broker_counts_as_away_after_three_commits_without_an_answer",
    ),
    Mutant(
        "libs/runtime/disk.py",
        "if free < wanted",
        "if free > wanted",
        RUNTIME + "test_parts.py::test_consuming_stops_with_less_room_than_is_wanted",
    ),
    Mutant(
        "libs/runtime/rebuild.py",
        "read[topic, partition] -= before",
        "pass",
        RUNTIME + "test_parts.py::test_a_rebuild_goes_on_where_it_was_in_its_order",
    ),
    Mutant(
        "libs/runtime/published.py",
        "if store in self._stores and origin[2] >= self._first_sequence:",
        "if store in self._stores:",
        RUNTIME + "test_published.py::test_seals_of_an_earlier_try_close_nothing",
    ),
    Mutant(
        "libs/runtime/rereading.py",
        "latest[tp] = stamp = max(latest.get(tp, 0), record.timestamp)",
        "stamp = record.timestamp",
        RUNTIME + "test_rereading.py::test_a_clock_that_goes_back_does_not_turn_a_partition_around",
    ),
    Mutant(
        "libs/runtime/routing.py",
        "control |= {former.name for former in self.former if former.current in control}",
        "pass",
        RUNTIME + "test_routing.py::test_a_former_major_of_a_fact_is_a_fact",
    ),
    Mutant(
        "libs/runtime/stateless.py",
        "sources=sorted({*theirs, *ours})",
        "sources=sorted(ours)",
        RUNTIME + "test_stateless.py::test_a_seal_is_passed_on_for_what_the_sealed_store_became_here",
    ),
)


def planted(folder: Path, mutant: Mutant) -> str:
    """Plant it in a copy of the code; its file's text before. Raises ValueError if it cannot be told where."""
    path = folder / mutant.file
    text = path.read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise ValueError(
            f"{mutant.file}: {mutant.old!r} stands there {found} times: say anew where this mutant belongs"
        )
    path.write_text(text.replace(mutant.old, mutant.new))
    return text


def is_green(folder: Path, tests: Sequence[str]) -> bool:
    """Raises RuntimeError if the tests could not be run at all."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, *(f"tests/{test}" for test in tests)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS * len(tests),
    )
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(tests)} did not run: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 0


def copy_of(folder: Path) -> Path:
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def survivors(chosen: Sequence[Mutant]) -> list[Mutant]:
    """Those that their tests do not notice."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(JOBS):
            copies.put(copy_of(Path(folder) / str(number)))

        def survives(mutant: Mutant) -> bool:
            copy, began = copies.get(), time.monotonic()
            try:
                text = planted(copy, mutant)
                try:
                    survived = is_green(copy, [mutant.test])
                finally:
                    (copy / mutant.file).write_text(text)
            finally:
                copies.put(copy)
            word = "SURVIVED" if survived else "killed"
            seconds = time.monotonic() - began
            print(f"{word:8} {seconds:3.0f} s {mutant.file}: {mutant.old.strip()[:60]!r} by {mutant.test}", flush=True)
            return survived

        copy = copies.get()
        if not is_green(copy, sorted({mutant.test for mutant in chosen})):
            raise RuntimeError("a test is red without any mutant: mend that first")
        copies.put(copy)
        with ThreadPoolExecutor(JOBS) as pool:
            return [mutant for mutant, survived in zip(chosen, pool.map(survives, chosen), strict=True) if survived]


def main(numbers: Sequence[str]) -> int:
    chosen = [MUTANTS[int(number)] for number in numbers] if numbers else list(MUTANTS)
    left = survivors(chosen)
    print(f"{len(chosen) - len(left)} of {len(chosen)} mutants were noticed")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
