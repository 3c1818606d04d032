"""What the embedded broker is made of: coordinates, locked jars with their SHA-256, settings, logging."""
