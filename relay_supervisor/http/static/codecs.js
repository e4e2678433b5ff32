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
