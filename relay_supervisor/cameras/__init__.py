"""Which cameras exist, which are wanted, and how what runs is made to match."""
