"""The seven services. Each imports only itself, `libs` and `contracts`."""
