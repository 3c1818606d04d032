"""The history of feature's tables, oldest first: see evenkeel.libs.store.schema."""
