"""ICE, DTLS and SRTP for both directions, and the SDP that both share."""
