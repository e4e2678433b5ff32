"""Ingest: sources over RTSP and WebRTC, kept playing."""
