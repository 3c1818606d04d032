"""Small summaries of many rows: reference profiles of training sets."""
