"""Worker processes: how they are started, watched, restarted and talked to."""
