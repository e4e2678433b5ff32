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

  // The offer once more, with what the fragment changes.
  const restart = async (fragment) => {
    const [ice] = fragment.match(/a=ice-ufrag:\S+\r\na=ice-pwd:\S+/);
    const candidates = fragment.match(/a=candidate:.*\r\n/g) ?? [];
    const renewed = offer
      .replaceAll(/a=candidate:.*\r\n/g, "")
      .replaceAll(/a=ice-ufrag:\S+\r\na=ice-pwd:\S+/g, ice)
      .replaceAll("a=end-of-candidates\r\n", candidates.join("") + "a=end-of-candidates\r\n");
    await pc.setRemoteDescription({ type: "offer", sdp: renewed });
    await pc.setLocalDescription(await pc.createAnswer());
    const wanted = /^a=(ice-ufrag|ice-pwd|candidate):/;
    return pc.localDescription.sdp.split("\r\n").filter((line) => wanted.test(line)).join("\r\n") + "\r\n";
  };
  return { answer: pc.localDescription.sdp, close: () => pc.close(), restart };
});
