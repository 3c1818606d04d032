"""The bootstrap token: one token with every role, made at the first start on a data folder.

`python -m evenkeel.apps.cli.tokens FOLDER` makes it and prints it, for deployments without our supervisor.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Final

from evenkeel.contracts.http.route import ROLES

NAME: Final = "bootstrap"
"""Whom facts name that were commanded with this token."""


def bootstrap_token(keys: Path, tokens: Path) -> tuple[str, bool]:
    """The token kept in `<keys>/token`, and whether it was made just now.

    `tokens` is what services read: a JSON object of the token's SHA-256 (hex) to its holder's name and roles, so that
    reading that file lets nobody in. Entries of others in it stay.
    """
    path = keys / "token"
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = not path.exists()
    if made:
        _write_private(path, secrets.token_urlsafe(32) + "\n")
    token = path.read_text(encoding="ascii").strip()
    entries = json.loads(tokens.read_text(encoding="utf-8")) if tokens.exists() else {}
    digest = hashlib.sha256(token.encode()).hexdigest()
    if digest not in entries:
        _write_private(tokens, json.dumps({**entries, digest: {"name": NAME, "roles": list(ROLES)}}, indent=2) + "\n")
    return token, made


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m evenkeel.apps.cli.tokens FOLDER")
    folder = Path(sys.argv[1])
    token, made = bootstrap_token(folder, folder / "tokens.json")
    print(f"Token with every role, shown once: {token}" if made else f"There is a token in {folder / 'token'} already")


if __name__ == "__main__":
    main()
