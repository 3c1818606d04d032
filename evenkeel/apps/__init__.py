"""What people start: the command line, the demo, the embedded broker. No library and no service imports them."""
