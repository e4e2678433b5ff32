"""RTSP client (RFC 2326, with RFC 7826 where servers follow it): a core without I/O, and its edge."""
