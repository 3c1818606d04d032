"""Who was champion when, what the log's records say, and the walks along what caused what."""
