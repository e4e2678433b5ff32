// Why a camera's picture is not seen, and what happens next, in the relay's own words.

import { capital, due, next, span, word } from "./format.js";
import { PAUSED } from "./playback.js";
import { elsewhere, shown } from "./published.js";

// Whether the relay's words are to be seen instead of a picture, which may be the slate that is sent meanwhile.
export function covers(camera) {
  return camera.state !== "live";
}

// A verdict's cause, for how long it has been so, and what happens next and when; `now` in Unix seconds. The figures are
// the page's, which counts them on.
export function spelled({ cause, since, next: action, next_at: at }, now) {
  const age = since > 0 && now - since >= 1 ? ` (for\u00a0${span(now - since).replaceAll(" ", "\u00a0")})` : "";
  return [`${cause}${age}`, due(action, at, now)];
}

// What is the matter, why, and what then; each may be empty. `fault` and `refusal`: why this page shows no picture,
// although others do, and why nobody's does; `unavailable`: what the relay says of one that is live; `paused`: by the browser.
export function told(camera, { wanted, unavailable, refusal, fault, paused, now }) {
  if (fault) return ["No picture here", fault, ""];
  if (camera.state !== "live") {
    const known = camera.verdict?.cause ? spelled(camera.verdict, now) : [camera.reason, next(camera, now)];
    // "Connecting" is said once.
    return [capital(word(camera)), known[0].replace(capital(camera.state), "").trim(), known[1]];
  }
  if (camera.decodable === "no") return [capital(word(camera)), camera.verdict?.cause || camera.reason, ""];
  if (!shown(camera)) return ["Not shown here", elsewhere(camera), ""];
  if (!wanted) return ["Paused", "Not pulled while it is out of sight", ""];
  if (refusal) return ["No picture here", refusal, "This page tries again by itself"];
  if (paused) return ["Paused", PAUSED, ""];
  return ["Picture on its way", unavailable, ""];
}

// What a person can do about a camera; of one that is live, what is remarkable about it, too. Empty if nothing is.
export function advised(camera, now) {
  const { verdict } = camera;
  if (!verdict?.cause) return camera.state === "live" ? capital(camera.reason) : "";
  const noted = camera.state === "live" ? spelled(verdict, now) : [];
  return [...noted, verdict.advice].filter(Boolean).join(". ");
}

// What a person can do about a camera whose picture is covered, unless `problems` of the whole relay say so already.
export function remedy(camera, problems) {
  const { code, advice } = camera.verdict ?? {};
  return covers(camera) && advice && !problems.some((problem) => problem.code === code) ? `${advice.replaceAll("`", "")}.` : "";
}

// A line for the banner: of a problem of the relay or of an account, which is `named` where there are several.
export function line(problem, now, named) {
  const [cause, then] = spelled(problem, now);
  const subject = named && problem.subject ? `${problem.subject}: ` : "";
  return `${subject}${[cause, then, problem.advice].filter(Boolean).join(". ")}.`;
}
