// A WHEP player made of werift: plays the URL that is its argument, and writes what it has received twice a second, as
// one line of JSON. With the end of its standard input it ends its session.
import { RTCPeerConnection, useH264, useOPUS } from "werift";
import { Counter } from "./whip_front.mjs";

const [url] = process.argv.slice(2);
const counters = { video: new Counter(), audio: new Counter() };
const pc = new RTCPeerConnection({
  codecs: { video: [useH264()], audio: [useOPUS()] },
  iceServers: [],
  iceAdditionalHostAddresses: ["127.0.0.1"],
  iceUseIpv6: false,
});
pc.addTransceiver("video", { direction: "recvonly" });
pc.addTransceiver("audio", { direction: "recvonly" });
pc.onTrack.subscribe((track) => track.onReceiveRtp.subscribe((rtp) => counters[track.kind].take(rtp.serialize())));
await pc.setLocalDescription(await pc.createOffer());
while (pc.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 20));
const headers = { "Content-Type": "application/sdp" };
const answer = await fetch(url, { method: "POST", headers, body: pc.localDescription.sdp });
const sdp = await answer.text();
if (!answer.ok) throw new Error(`${answer.status}: ${sdp}`);
await pc.setRemoteDescription({ type: "answer", sdp });
setInterval(() => {
  const counted = { state: pc.connectionState, video: counters.video.counted, audio: counters.audio.counted };
  process.stdout.write(`${JSON.stringify(counted)}\n`);
}, 500);
process.stdin.resume().on("end", async () => {
  const resource = answer.headers.get("Location");
  if (resource) await fetch(new URL(resource, url), { method: "DELETE" });
  await pc.close();
  process.exit(0);
});
