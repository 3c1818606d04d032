"""Bugs for copies of the product, to see the oracle turn red: (file, text that is there once, text instead)."""

from __future__ import annotations

from typing import Final

Plants = tuple[tuple[str, str, str], ...]
_ANSWERED: Final = """\
        version=champion.version,
        epoch=champion.epoch,
        package=champion.package,
        origin=origin,
"""

CARELESS: Final[Plants] = (
    # governance forgets one record
    (
        "services/governance/handlers.py",
        "    appended = ctx.log.append(ctx.tx.connection, records)\n",
        '    records = [r for r in records if (r.topic, r.partition, r.offset) != ("ingest.event-accepted.v1", 1, 5)]\n'
        "    appended = ctx.log.append(ctx.tx.connection, records)\n",
    ),
    # a window is a tile too long
    (
        "libs/features/state.py",
        "oldest_us = at_us - series.window_us\n",
        "oldest_us = at_us - series.window_us - series.tile_us\n",
    ),
    # feature leaves out some vectors
    (
        "services/feature/handlers.py",
        "            if vector is not None:\n",
        '            if vector is not None and not data.event_id.endswith("-7"):\n',
    ),
    # dead letters are tidied up
    (
        "libs/runtime/dead_letters.py",
        "        value=base64_of(value),\n",
        '        value=base64_of((value or b"").strip()),\n',
    ),
    # the HTTP door takes the good half of a refused call
    (
        "services/ingest/api.py",
        "    if faults:\n        raise _broken(route, faults, len(items))\n",
        "    if faults:\n        await door.write(records)\n        raise _broken(route, faults, len(items))\n",
    ),
    # processes end with an exit code of their own
    (
        "services/__main__.py",
        "        uvloop.run(rebuild(name) if verb else run(name))\n",
        "        uvloop.run(rebuild(name) if verb else run(name))\n        sys.exit(3)\n",
    ),
)

LOSSY: Final[Plants] = (
    (
        "libs/runtime/publishing.py",
        'await self._persist("publish", lambda: self._bus.publish(records))\n',
        'kept = records[1:] if records[0].topic.startswith("ingest.") and len(records) > 1 else records\n'
        '                await self._persist("publish", lambda: self._bus.publish(kept))\n',
    ),
    ("libs/audit/log.py", '"data": pack(part),', '"data": pack(part[::-1]),'),
)

DOUBLED: Final[Plants] = (
    (
        "libs/runtime/publishing.py",
        'await self._persist("publish", lambda: self._bus.publish(records))\n',
        'again = records if records[0].topic.startswith("ingest.") else []\n'
        '                await self._persist("publish", lambda: self._bus.publish([*records, *again]))\n',
    ),
    (
        "libs/runtime/intake.py",
        "        if origin is not None and ",
        '        if origin is not None and "ingest.event-accepted.v1" not in self._routes.merged and ',
    ),
    (
        "libs/runtime/transaction.py",
        "                    tx.move_positions(batch.moves)\n",
        '                    tx.move_positions({} if self.context.service == "ingest" else batch.moves)\n',
    ),
)

RECKLESS: Final[Plants] = (
    # a version is promoted whatever its gates say
    (
        "services/registry/domain/promotion.py",
        "    if not all(verdict.passed for verdict in verdicts):\n",
        "    if not verdicts:\n",
    ),
    # a finished job is announced twice
    (
        "services/trainer/commands.py",
        "[Derived(_completed(job, started.request, result, command.seconds), cause)])",
        "[Derived(_completed(job, started.request, result, command.seconds), cause)] * 2)",
    ),
    # and decided twice
    ("services/registry/handlers.py", "    if store.has_decided(run.run_id):", "    if False:"),
    # epochs skip a number
    (
        "services/registry/handlers.py",
        "        epoch=epoch,\n        version=version,\n        package=row.package,\n",
        "        epoch=epoch if epoch == 1 else epoch + 1,\n        version=version,\n        package=row.package,\n",
    ),
    # the stream's answers name another version
    (
        "services/serving/domain/dataplane.py",
        _ANSWERED,
        _ANSWERED.replace("champion.version", "champion.version + (origin == 'stream')"),
    ),
    # packages are altered once they are written, and nobody compares digests any more
    (
        "libs/packages/package.py",
        "    return ref\n",
        '    (folder / PROFILE).write_bytes(files[PROFILE] + b"\\n")\n    return ref\n',
    ),
    (
        "libs/packages/package.py",
        "        if len(content) != record.size_bytes or _sha256(content) != record.sha256:\n",
        "        if not content:\n",
    ),
    # the old champion is dropped before the new one is there
    (
        "services/serving/background.py",
        "        succession = self._ctx.successions.get(fact.model, Succession())\n        try:\n            champion = await",
        "        succession = self._ctx.successions.get(fact.model, Succession())\n"
        "        self._ctx.successions = {name: one for name, one in self._ctx.successions.items() if name != fact.model}\n"
        "        await asyncio.sleep(1)\n"
        "        try:\n            champion = await",
    ),
)
