"""The one consume loop, the event-time merge, the outbox."""
