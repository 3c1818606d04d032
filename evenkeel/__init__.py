"""Kafka-native MLOps. Libraries, services and contracts lie beside this folder and are linked into it; `apps` stands upon them.

`evenkeel.contracts` is what crosses a service boundary, `evenkeel.libs` what services share, `evenkeel.services` the seven
services, `evenkeel.apps` what people start: the command line, the demo, the embedded broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenkeel.libs.client.clients import AsyncClient, Client
    from evenkeel.libs.client.errors import CallRefused, NoAnswer, ServiceError

__all__ = ["AsyncClient", "CallRefused", "Client", "NoAnswer", "ServiceError"]
_CLIENTS = ("AsyncClient", "Client")


def __getattr__(name: str) -> Any:
    """The client is imported when it is asked for: every part of the system imports this package, few need that."""
    if name not in __all__:
        raise AttributeError(f"module 'evenkeel' has no attribute {name!r}")
    from evenkeel.libs.client import clients, errors

    return getattr(clients if name in _CLIENTS else errors, name)
