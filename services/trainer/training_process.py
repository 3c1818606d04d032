"""The training process: `python -m evenkeel.services.trainer.training_process REQUEST.json RESULT.json`, or `--standby`.

Importing scikit-learn takes seconds, so a standby process imports first and then waits for one line on its standard
input: the two paths as a JSON list. It does that one job and exits; an end of input without a line ends it as well.
The exit status is 0 when there is a result (a refusal is one), 2 when the request cannot be read.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from evenkeel.libs.clock import SystemClock
from evenkeel.libs.estimators import ESTIMATORS
from evenkeel.services.trainer.domain.job import JobRequest


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """scikit-learn and pyarrow look whether pandas is there; where it is, that costs a second and is of no use here."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def main(arguments: list[str]) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait starve a busy machine
    sys.meta_path.insert(0, _WithoutPandas())
    if arguments == ["--standby"]:
        importlib.import_module("evenkeel.services.trainer.training_run")
        for estimator in ESTIMATORS:
            estimator.load()
        line = sys.stdin.readline()
        if not line.strip():
            return 0
        arguments = json.loads(line)
    if len(arguments) != 2:
        print(
            "usage: python -m evenkeel.services.trainer.training_process REQUEST.json RESULT.json | --standby",
            file=sys.stderr,
        )
        return 2
    request_path, result_path = map(Path, arguments)
    try:
        request = JobRequest.model_validate_json(request_path.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"{request_path.name}: {error}", file=sys.stderr)
        return 2
    from evenkeel.services.trainer.training_run import run, stopwatch  # slow, and only after _WithoutPandas is in place

    result = run(request, SystemClock(), stopwatch())
    draft = result_path.with_name(result_path.name + ".draft")
    with draft.open("wb") as file:
        file.write(result.model_dump_json(indent=2).encode())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(result_path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
