"""The supervisor's HTTP side: dashboard, API, events, metrics."""
