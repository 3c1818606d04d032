"""The main job: a year of real flights through the whole loop. An outsider: it knows topics and HTTP, no service's inside."""
