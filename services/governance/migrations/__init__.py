"""The history of governance's tables, oldest first: see evenkeel.libs.store.schema."""
