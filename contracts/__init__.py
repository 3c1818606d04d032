"""What crosses a service boundary: the envelope, the map of topics, and every payload, by producer."""
