"""The history of trainer's tables, oldest first: see libs.store.schema."""
