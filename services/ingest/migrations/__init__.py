"""The history of ingest's tables, oldest first: see libs.store.schema."""
