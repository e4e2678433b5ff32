"""The camera's side: sources over RTSP and WebRTC, kept playing."""
