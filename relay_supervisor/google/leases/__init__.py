"""Stream leases: one state machine a camera, the planner, and the book that joins them."""
