// A WHIP server made of werift.
import { RTCPeerConnection, useH264, useOPUS } from "werift";
import { serve } from "./whip_front.mjs";

serve(async (offer, counters) => {
  const pc = new RTCPeerConnection({
    codecs: { video: [useH264()], audio: [useOPUS()] },
    iceServers: [],
    iceAdditionalHostAddresses: ["127.0.0.1"],
    iceUseIpv6: false,
  });
  pc.onTrack.subscribe((track) => track.onReceiveRtp.subscribe((rtp) => counters[track.kind].take(rtp.serialize())));
  await pc.setRemoteDescription({ type: "offer", sdp: offer });
  await pc.setLocalDescription(await pc.createAnswer());
  return { answer: pc.localDescription.sdp, close: () => pc.close() };
});
