"""Operators' requests to the running relay: verbs, reloading, and files from workers."""
