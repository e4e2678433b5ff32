"""The checks of `relay-supervisor check`: each returns findings, and every bad finding has a remedy."""
