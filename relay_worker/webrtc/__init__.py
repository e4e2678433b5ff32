"""WebRTC: offers and answers, the media transport, and the sender that publishes one camera to the SFU."""
