"""Stream leases: one state machine per camera, the planner, and the book that combines them."""
