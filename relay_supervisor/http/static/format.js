// Numbers and times formatted for people.

export function bits(perSecond) {
  if (!perSecond) return "0";
  if (perSecond >= 1e9) return `${(perSecond / 1e9).toFixed(2)} Gb/s`;
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(perSecond >= 1e8 ? 0 : 1)} Mb/s`;
  return `${Math.round(perSecond / 1e3)} kb/s`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (count >= 1000 && step < units.length - 1) { count /= 1000; step += 1; }
  return `${count.toFixed(step && count < 100 ? 1 : 0)} ${units[step]}`;
}

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 3600) return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function milliseconds(seconds) {
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

export function times(count) {
  return count === 1 ? "once" : count ? `${count} times` : "never";
}

// "1 freeze", "2 freezes"
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

// A camera's state in words: an undecodable camera is not simply live.
export function word(camera) {
  return camera.decodable === "no" ? `${camera.state}, not decodable` : camera.state;
}

// The colour of a camera's state; the words always say the same.
export function tone(state, decodable = "unknown") {
  if (decodable === "no") return "bad";
  if (state === "live") return "live";
  if (state === "idle") return "off";
  if (state === "connecting" || state === "reconnecting" || state === "waiting") return "busy";
  if (state === "degraded" || state === "offline") return "bad";
  return "off";
}

// The words without the times that are counted in them: what is read out when it changes, and not every second.
export function unfigured(words) {
  return words.replace(/ ?\(?(for|in|next in)[ \u00a0]\d+:\d\d\)?/g, "");
}

// What happens next, for a camera that is not live.
export function next(camera, now) {
  return due(camera.lease.next_action, camera.lease.next_at, now);
}

// What is going to happen, and when: by this page's counting, not by how long it was at the last status.
export function due(action, at, now) {
  if (!action) return "";
  const left = at - now;
  if (left <= 0.5) return capital(action);
  const what = capital(action.replace(/ in about \d+ \w+/, ""));
  return /[,;]/.test(what) ? `${what} (next in\u00a0${span(left)})` : `${what} in\u00a0${span(left)}`;
}
