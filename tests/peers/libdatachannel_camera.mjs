// A WebRTC camera made of libdatachannel (node-datachannel): reads {"offer"} as one line of JSON, writes {"answer"}, then
// sends what comes to its UDP ports as RTP. Arguments: UDP port for video, for audio.
import { createSocket } from "node:dgram";
import { createInterface } from "node:readline";
import ndc from "node-datachannel";

const [videoPort, audioPort] = process.argv.slice(2).map(Number);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { offer } = JSON.parse((await lines.next()).value);

// A track that is added with the mid of the offer's section becomes its other side.
const sections = offer.split(/\r?\nm=/).slice(1);
const mid = (kind) => /a=mid:(\S+)/.exec(sections.find((section) => section.startsWith(kind)))[1];
const payloadType = (kind, codec) =>
  Number(new RegExp(`a=rtpmap:(\\d+) ${codec}/`, "i").exec(sections.find((section) => section.startsWith(kind)))[1]);

const pc = new ndc.PeerConnection("camera", { iceServers: [], bindAddress: "127.0.0.1" });
const answered = new Promise((resolve) =>
  pc.onGatheringStateChange((state) => state === "complete" && resolve(pc.localDescription().sdp)),
);
for (const [kind, port, ssrc] of [["audio", audioPort, 1111], ["video", videoPort, 2222]]) {
  const codec = kind === "video" ? "H264" : "opus";
  const type = payloadType(kind, codec);
  const media = kind === "video" ? new ndc.Video(mid(kind), "SendOnly") : new ndc.Audio(mid(kind), "SendOnly");
  if (kind === "video") media.addH264Codec(type);
  else media.addOpusCodec(type);
  media.addSSRC(ssrc, "camera", "camera", kind);
  const track = pc.addTrack(media);
  const config = new ndc.RtpPacketizationConfig(ssrc, "camera", type, kind === "video" ? 90000 : 48000);
  const reporter = new ndc.RtcpSrReporter(config);
  reporter.addToChain(new ndc.RtcpNackResponder());
  track.setMediaHandler(reporter);
  createSocket("udp4")
    .on("message", (packet) => {
      if (!track.isOpen()) return;
      packet[1] = (packet[1] & 0x80) | type;
      packet.writeUInt32BE(ssrc, 8);
      track.sendMessageBinary(packet);
    })
    .bind(port, "127.0.0.1");
}
pc.onStateChange((state) => process.stderr.write(`libdatachannel: ${state}\n`));
pc.setRemoteDescription(offer, "offer");
process.stdout.write(`${JSON.stringify({ answer: await answered })}\n`);
await lines.next(); // the end of stdin ends the camera
pc.close();
ndc.cleanup();
process.exit(0);
