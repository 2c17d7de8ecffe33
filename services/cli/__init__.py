"""The `recorder` command: the only room that knows all services."""
