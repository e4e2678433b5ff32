"""What the relay tells about itself: status, health, recent log lines."""
