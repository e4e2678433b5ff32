"""The worker process: start-up, confinement, control messages and log forwarding."""
