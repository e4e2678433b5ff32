"""A camera made of GStreamer's RTSP server, for the interpreter that has Debian's bindings; prints its port."""

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
for encoder in ("x264enc tune=zerolatency key-int-max=30", "openh264enc gop-size=30"):
    if Gst.ElementFactory.find(encoder.split()[0]) is not None:
        break
else:
    raise SystemExit("no H.264 encoder")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 ! videoconvert ! "
    f"{encoder} ! rtph264pay name=pay0 pt=96 config-interval=-1 "
    "audiotestsrc is-live=true ! audioconvert ! audioresample ! opusenc ! rtpopuspay name=pay1 pt=97 )"
)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
