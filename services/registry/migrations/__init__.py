"""The history of registry's tables, oldest first: see evenkeel.libs.store.schema."""
