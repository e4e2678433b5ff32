// Where a camera is published, in words.

import { bits, capital } from "./format.js";

const named = (sink) => sink.name || "Cloudflare";

// Every sink by itself: the rate there, what is lost on the way, or why it gets nothing.
export function published({ sinks = [] }) {
  const words = sinks.map((sink) => {
    if (!sink.live) return `${named(sink)}: ${sink.reason || "not yet"}`;
    const lost = sink.loss >= 0.001 ? `, ${(sink.loss * 100).toFixed(1)} % lost` : "";
    return `${named(sink)}: ${bits(sink.bitrate)}${lost}`;
  });
  return words.join("; ") || "–";
}

// Whether the camera can be watched at Cloudflare or at the relay itself, so that a page has a picture of it.
export function shown({ sfu, local }) {
  return sfu !== false || Boolean(local?.on);
}

// Where it is to be seen when no page has its picture; guests are not told.
export function elsewhere({ sinks, local }) {
  if (!sinks) return "This relay does not show it on pages";
  if (local?.problem) return capital(local.problem);
  const at = sinks.filter((sink) => sink.name && sink.live).map(named);
  const where = at.length ? `It is published at ${at.join(", ")}` : "It is published nowhere yet";
  return `${where}. To watch it here, too: listen = "127.0.0.1" in [local], or [cloudflare]`;
}
