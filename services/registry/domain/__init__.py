"""Gates, promotion, approval, rollback: pure decisions over what is known."""
