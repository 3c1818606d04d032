"""What the registry's handlers see."""

from __future__ import annotations

from pathlib import Path

from evenkeel.contracts.declaration import ModelSpec, PromotionPolicy
from evenkeel.contracts.registry import Declared
from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.keys import VerificationKey, verification_keys
from evenkeel.libs.packages.package import read_package
from evenkeel.libs.packages.scorer import Scorer
from evenkeel.libs.service import Context
from evenkeel.libs.settings import Settings
from evenkeel.services.registry.settings import RegistrySettings
from evenkeel.services.registry.store import ModelRow, RegistryStore


class RegistryContext(Context):
    """Everything is in the store."""

    own: RegistrySettings

    def __init__(self, settings: Settings) -> None:
        self._artifacts: Path = settings.data_dir / "artifacts"
        self._keys_folder = settings.keys
        self._policies: dict[str, tuple[Declared, PromotionPolicy]] = {}
        """Model → its declaration, and the policy that was read from it."""

    @property
    def store(self) -> RegistryStore:
        return RegistryStore(self.tx.connection)

    def policy(self, model: ModelRow) -> PromotionPolicy:
        """The promotion policy of a model, read once for each declaration."""
        known = self._policies.get(model.name)
        if known is None or known[0] != model.spec:
            known = self._policies[model.name] = (model.spec, ModelSpec.model_validate(model.spec).promotion)
        return known[1]

    def package_fault(self, digest: str) -> str | None:
        """Why a package cannot be used: its bytes, its signature or its golden rows; None if all is well."""
        keys: dict[str, VerificationKey] = dict(verification_keys(self._keys_folder))
        try:
            Scorer(read_package(self._artifacts, digest, keys)).check_golden()
        except EvenkeelError as error:
            return f"{type(error).__name__}: {error}"
        return None
