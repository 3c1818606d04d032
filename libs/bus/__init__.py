"""The bus: what services need of Kafka, behind a small protocol."""
