"""The history of ingest's tables, oldest first: see evenkeel.libs.store.schema."""
