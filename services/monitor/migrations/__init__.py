"""The history of monitor's tables, oldest first: see libs.store.schema."""
