"""The history of the runtime's own tables, which every store has: see evenkeel.libs.store.schema."""
