"""Simulators of Nest, its cameras and the SFU: what the demo runs on and what integration tests use."""
