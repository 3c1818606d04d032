"""Settings come from the environment only; a variable that nobody reads is an error, not a surprise.

`EVENKEEL_<NAME>` is shared by all services; `EVENKEEL_<SERVICE>_<NAME>` belongs to one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.errors import SettingsError

PREFIX: Final = "EVENKEEL_"
SUPERVISOR_VARIABLES: Final = frozenset({"EVENKEEL_PORT_BASE", "EVENKEEL_BROKER_PORT"})
DEFAULT_PORTS: Final = {service: 8101 + number for number, service in enumerate(SERVICES)}

S = TypeVar("S", bound=BaseSettings)


class Settings(BaseSettings):
    """What every service needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(Path(".evenkeel"), description="Everything durable lives below it.")
    broker: str = Field("127.0.0.1:9092", pattern=r"^[^:]+:\d+(,[^:]+:\d+)*$", description="Kafka's bootstrap address.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; without it, one SQLite file per service.")
    host: str = Field("127.0.0.1", description="Address of the HTTP port.")
    port: int | None = Field(None, ge=0, le=65535, description="HTTP port; without it, the service's own default.")
    keys_dir: Path | None = Field(None, description="Signing keys; without it, `keys` in the data folder.")
    tokens_file: Path | None = Field(
        None, description="Who may call; without it, `keys/tokens.json` in the data folder."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    trace_ratio: float = Field(0.01, ge=0, le=1, description="Share of raw events whose trace is recorded.")
    failpoints: str = Field("", description="For tests: `name=kill@n,…`.")
    accept_gap: bool = Field(False, description="Go on after records were lost to retention.")
    accept_new_store: bool = Field(
        False, description="Start an empty store although another one's records are on this service's topics."
    )
    max_outbox_bytes: int = Field(
        268_435_456,
        ge=1,
        description="Events kept while the broker is away; beyond it, commands and requests are refused.",
    )
    min_free_bytes: int = Field(
        268_435_456,
        ge=0,
        description="With less free on the data folder's disk, nothing is consumed until there is more.",
    )
    max_pending_records: int = Field(
        20_000,
        ge=1,
        description="With more records held by the event-time merge, partitions where nothing is waited for are not read.",
    )
    max_batch_records: int = Field(2000, ge=1, le=100_000)

    @property
    def keys(self) -> Path:
        return self.keys_dir or self.data_dir / "keys"

    @property
    def tokens(self) -> Path:
        return self.tokens_file or self.keys / "tokens.json"

    def database(self, service: str) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / f'{service}.db').resolve()}"


class OwnSettings(BaseSettings):
    """Base of a service's own settings; a subclass sets `env_prefix="EVENKEEL_<SERVICE>_"`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


def read_settings(service: str, own: type[S], environment: Mapping[str, str] | None = None) -> tuple[Settings, S]:
    """The shared settings and the service's own; raises SettingsError naming the variable and the fix."""
    environment = os.environ if environment is None else environment
    shared = {PREFIX + name.upper() for name in Settings.model_fields} | SUPERVISOR_VARIABLES
    mine = f"{PREFIX}{service.upper()}_"
    known = shared | {mine + name.upper() for name in own.model_fields}
    others = tuple(f"{PREFIX}{other.upper()}_" for other in SERVICES if other != service)
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in known and not variable.startswith(others):
            near = difflib.get_close_matches(variable, known, 1)
            raise SettingsError(
                f"{variable} is not a setting of {service}." + (f" Did you mean {near[0]}?" if near else "")
            )
    try:
        return Settings(), own()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        prefix = PREFIX if field in Settings.model_fields else mine
        raise SettingsError(f"{prefix}{field.upper()}: {first['msg']}, got {first['input']!r}") from None
