// A WebRTC camera made of werift: reads {"offer"} as one line of JSON, writes {"answer"}, then sends what comes to its
// UDP ports as RTP. Arguments: UDP port for video, for audio.
import { createSocket } from "node:dgram";
import { createInterface } from "node:readline";
import { MediaStreamTrack, RTCPeerConnection, useH264, useOPUS } from "werift";

const [videoPort, audioPort] = process.argv.slice(2).map(Number);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { offer } = JSON.parse((await lines.next()).value);

const pc = new RTCPeerConnection({
  codecs: { video: [useH264()], audio: [useOPUS()] },
  iceServers: [],
  iceAdditionalHostAddresses: ["127.0.0.1"],
  iceUseIpv6: false,
});
for (const [kind, port] of [["audio", audioPort], ["video", videoPort]]) {
  const track = new MediaStreamTrack({ kind });
  pc.addTransceiver(track, { direction: "sendonly" });
  createSocket("udp4").on("message", (packet) => track.writeRtp(packet)).bind(port, "127.0.0.1");
}
pc.connectionStateChange.subscribe((state) => process.stderr.write(`werift: ${state}\n`));
await pc.setRemoteDescription({ type: "offer", sdp: offer });
await pc.setLocalDescription(await pc.createAnswer());
process.stdout.write(`${JSON.stringify({ answer: pc.localDescription.sdp })}\n`);
await lines.next(); // the end of stdin ends the camera
await pc.close();
process.exit(0);
