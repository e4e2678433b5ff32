"""RTP and RTCP: packet codecs, reception statistics, the media timeline and payload formats; no I/O, no clock."""
