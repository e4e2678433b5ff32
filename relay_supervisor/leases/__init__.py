"""Stream leases: one state machine per camera, the planner, the book that joins them, and the store."""
