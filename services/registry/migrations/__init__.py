"""The history of registry's tables, oldest first: see libs.store.schema."""
