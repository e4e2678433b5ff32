"""Simulated cameras: their media, and their RTSP and WebRTC servers."""
