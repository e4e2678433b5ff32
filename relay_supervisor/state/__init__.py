"""What outlives the supervisor: the state database and the lock on it."""
