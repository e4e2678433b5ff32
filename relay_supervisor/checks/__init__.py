"""What `relay-supervisor check` looks at: each part gives findings, and every finding that is not good has a remedy."""
