"""The history of trainer's tables, oldest first: see evenkeel.libs.store.schema."""
