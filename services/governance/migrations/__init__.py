"""The history of governance's tables, oldest first: see libs.store.schema."""
