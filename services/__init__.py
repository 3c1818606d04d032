"""The seven services. Each imports only itself, `evenkeel.libs` and `evenkeel.contracts`."""
