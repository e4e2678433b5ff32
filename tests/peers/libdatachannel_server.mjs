// A WHIP server made of libdatachannel (node-datachannel).
import ndc from "node-datachannel";
import { serve } from "./whip_front.mjs";

serve(async (offer, counters) => {
  const pc = new ndc.PeerConnection("server", { iceServers: [], bindAddress: "127.0.0.1" });
  const tracks = [];
  const answered = new Promise((resolve) =>
    pc.onGatheringStateChange((state) => state === "complete" && resolve(pc.localDescription().sdp)),
  );
  pc.onTrack((track) => {
    tracks.push(track); // or it is collected, and gone
    track.setMediaHandler(new ndc.RtcpReceivingSession());
    track.onMessage((packet) => {
      const type = packet[1];
      if (type >= 192 && type < 224) return; // RTCP
      counters[track.type()].take(packet);
    });
  });
  pc.setRemoteDescription(offer, "offer");
  const answer = await answered;
  return { answer, close: () => pc.close(), tracks };
});
