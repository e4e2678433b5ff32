"""The worker as a process: how it is started, confined, told what to do, and heard."""
