"""The calls of each service, as methods. Arguments and answers are those of `contracts/http`, one file a service."""
