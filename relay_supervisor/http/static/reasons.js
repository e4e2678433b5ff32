// Why a camera's picture is not seen, and what happens next, in the relay's own words.

import { capital, next, word } from "./format.js";
import { PAUSED } from "./playback.js";

// Whether the relay's words are to be seen instead of a picture, which may be the slate that is sent meanwhile.
export function covers(camera) {
  return camera.state !== "live";
}

// What is the matter, why, and what then; each may be empty. `fault` and `refusal`: why this page shows no picture,
// although others do, and why nobody's does; `unavailable`: what the relay says of one that is live; `paused`: by the browser.
export function told(camera, { wanted, unavailable, refusal, fault, paused, now }) {
  if (fault) return ["No picture here", fault, ""];
  if (camera.state !== "live") return [capital(word(camera)), camera.reason, next(camera, now)];
  if (camera.decodable === "no") return [capital(word(camera)), camera.reason, ""];
  if (!wanted) return ["Paused", "Not pulled while it is out of sight", ""];
  if (refusal) return ["No picture here", refusal, "This page tries again by itself"];
  if (paused) return ["Paused", PAUSED, ""];
  return ["Picture on its way", unavailable, ""];
}
