"""Viewers that workers answer themselves, without the SFU: who may watch, at which UDP port, and for how long."""
