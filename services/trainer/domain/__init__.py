"""Training as pure functions: a request and a table in, a package's contents and its evidence out."""
