"""The embedded broker: a real Apache Kafka as a child process, for one machine."""
