"""The history of feature's tables, oldest first: see libs.store.schema."""
