"""The supervisor's HTTP interface: dashboard, API, events, metrics."""
