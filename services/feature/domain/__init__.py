"""What feature computes: pure, over the sequence of folded records."""
