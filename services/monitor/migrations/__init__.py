"""The history of monitor's tables, oldest first: see evenkeel.libs.store.schema."""
