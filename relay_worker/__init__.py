"""The worker: moves one camera's media from RTSP or WebRTC to WebRTC, and nothing else."""
