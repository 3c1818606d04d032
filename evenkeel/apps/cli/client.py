"""How commands reach a running system: its address and token from the data folder, its errors as they were meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx2

from evenkeel.apps.cli.supervisor import running_supervisor
from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.settings import DEFAULT_PORTS


class ServiceError(EvenkeelError):
    """A service refused the call, or does not answer."""


def call(
    service: str, method: str, path: str, data_dir: Path, url: str | None = None, **request: Any
) -> dict[str, Any]:
    """One call; raises ServiceError with the service's own words, field and fix."""
    base = url or address(service, data_dir)
    headers = {"Authorization": f"Bearer {_token(data_dir)}"} | request.pop("headers", {})
    try:
        response = httpx2.request(method, base + path, headers=headers, timeout=60, **request)
    except httpx2.HTTPError as error:
        raise ServiceError(
            f"{service} does not answer at {base} ({type(error).__name__}): is `evenkeel up` running?"
        ) from None
    answer = _json(response)
    if response.status_code >= 400:
        raise ServiceError(_words(answer, response.status_code))
    return answer


def address(service: str, data_dir: Path) -> str:
    """Where a service of this data folder listens, or where it does by default."""
    state = running_supervisor(data_dir) or {}
    urls = state.get("urls")
    if isinstance(urls, dict) and service in urls:
        return str(urls[service])
    return f"http://127.0.0.1:{DEFAULT_PORTS[service]}"


def _token(data_dir: Path) -> str:
    token = os.environ.get("EVENKEEL_TOKEN")
    if token:
        return token
    path = data_dir / "keys" / "token"
    if not path.exists():
        raise ServiceError(
            f"there is no token: set EVENKEEL_TOKEN, or name the data folder with --data-dir (looked in {path})"
        )
    return path.read_text().strip()


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {"detail": response.text[:500]}
    return answer if isinstance(answer, dict) else {"answer": answer}


def _words(answer: dict[str, Any], status: int) -> str:
    problems = answer.get("problems")
    if problems:
        return "\n".join(f"line {p['line']}, {p['field']}: {p['message']}; {p['fix']}" for p in problems)
    detail, fix = answer.get("detail", f"HTTP status {status}"), answer.get("fix")
    return f"{detail} {fix}" if fix else str(detail)
