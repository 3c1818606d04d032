"""What makes a record acceptable: its contract, its id, its time. Pure: no input or output, no clock."""
