#!/usr/bin/env bash
# npm's sdp 3.2.2 (of webrtc-adapter) cuts an H.264 sprop-parameter-sets at its first "=": where the SPS is padded, the
# PPS is gone. Seen 2026-11-30, Node.js 20.
#
# Guess: a parameter's value is all that follows its first "=" (RFC 6184 section 8.2.1 has base64 in it, and base64 is padded
# in two of three cases), and what was parsed and is written again is the same.
# Seen: parseFmtp() splits the pair at every "=" and keeps the second part. Whether anything is lost depends on the length
# of the camera's SPS: one of 3n octets passes, any other loses its padding and all sets behind it, and writeFmtp()
# writes what is left. No error, and a decoder waits for a PPS. sdp-transform has split at the first one alone since its
# issue 42; found in no issue of sdp.
#
# It takes node's npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --no-audit --no-fund --prefix "$dir" sdp@3.2.2

cat >"$dir/seen.cjs" <<'JS'
const { parseFmtp, writeFmtp } = require("sdp");

const PPS = Buffer.from("68ce3c80", "hex");
const SPS = Buffer.from("6742001f95a814016e40", "hex"); // 10 octets
let same = true;
console.log("sdp", require("sdp/package.json").version);
for (const more of [0, 1, 2]) {
  // Zero octets behind a NAL unit mean nothing (H.264 section B.1.1): they stand for an SPS of another length.
  const sps = Buffer.concat([SPS, Buffer.alloc(more)]);
  const sets = [sps, PPS].map((set) => set.toString("base64")).join(",");
  const parameters = parseFmtp(`fmtp:96 packetization-mode=1;sprop-parameter-sets=${sets}`);
  const left = parameters["sprop-parameter-sets"];
  const line = writeFmtp({ payloadType: 96, parameters }).trim();
  const kept = left.split(",").length;
  console.log(`an SPS of ${sps.length} octets: ${sets}\n  ${kept} of 2 sets are left: ${line}`);
  same &&= kept === (sps.length % 3 === 0 ? 2 : 1) && line.endsWith(left) && left !== sets;
}
if (!same) {
  console.log("changed: the PPS was to be lost unless the SPS needs no padding");
  process.exit(1);
}
JS
(cd "$dir" && timeout 60 node seen.cjs)
