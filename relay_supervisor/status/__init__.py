"""The relay's status, health and recent log lines."""
