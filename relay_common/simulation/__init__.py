"""Simulators of Google's Nest API, its cameras and the SFU, used by the demo and the integration tests."""
