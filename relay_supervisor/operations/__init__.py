"""What a person asks of the running relay: the verbs, reloading, and files that workers hand over."""
