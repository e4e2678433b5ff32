"""Viewers that the worker answers itself, without the SFU: SDP, ICE-lite, DTLS, and one UDP port for all of them."""
