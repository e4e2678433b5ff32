// Whether this browser can decode what cameras send, which is H.264 alone.

const LACKING = "This browser has no H.264, which cameras send: it plays their sound only. ";
const FIREFOX = "Firefox downloads it by itself, as its OpenH264 plugin, within minutes of its first start: see about:addons, Plugins";
const OTHERS = "Use another browser, or one with its codecs installed";

// Why it cannot, and what to do; empty if it can, or does not say.
export function lacking() {
  const codecs = window.RTCRtpReceiver?.getCapabilities?.("video")?.codecs ?? [];
  if (!codecs.length || codecs.some(({ mimeType }) => mimeType.toLowerCase() === "video/h264")) return "";
  return LACKING + (/firefox/i.test(navigator.userAgent) ? FIREFOX : OTHERS);
}

// The offer with its sound alone, for a browser that can play no more. One that refuses the first section of a bundle, the
// one with the candidates, fails (Chromium) or never begins to connect (Firefox ESR 153).
export function soundOf(offer) {
  const [head, ...all] = sections(offer);
  const sound = all.filter(isSound);
  const candidates = all.flatMap((section) => section.match(/^a=(candidate:|end-of-candidates).*\r?\n/gm) ?? []);
  const bare = sound.map((section) => section.replace(/^a=(candidate:|end-of-candidates).*\r?\n/gm, ""));
  const bundle = head.replace(/^a=group:BUNDLE .*$/m, `a=group:BUNDLE ${sound.map(mid).join(" ")}`);
  return [bundle, ...bare.map((section, index) => (index ? section : section + [...new Set(candidates)].join("")))].join("");
}

// The answer to `offer` that refuses what `answer`, which is to its sound alone, leaves out.
export function refusing(offer, answer) {
  const [head, ...answers] = sections(answer);
  const refused = (section) => `${section.split(/\r?\n/)[0].replace(/ \d+ /, " 0 ")}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:${mid(section)}\r\n`;
  return [head, ...sections(offer).slice(1).map((section) => (isSound(section) ? answers.shift() : refused(section)))].join("");
}

const sections = (sdp) => sdp.split(/^(?=m=)/m);
const isSound = (section) => section.startsWith("m=audio");
const mid = (section) => section.match(/^a=mid:(\S+)/m)[1];
