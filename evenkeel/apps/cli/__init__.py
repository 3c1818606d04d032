"""The command `evenkeel`. A group of commands is one module here and one row in `main.COMMANDS`."""
