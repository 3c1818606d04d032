"""Small summaries of many rows: reference profiles of training sets, and how far other rows are from them."""
