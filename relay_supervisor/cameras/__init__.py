"""Which cameras there are, which are wanted, and what follows from the difference."""
