// Which picture of a camera a page needs, the full or the small one, and whether its line carries the full one. Pure
// functions: what is kept between two readings is their argument and their result.

export const FULL = "full";
export const SMALL = "small";

const SMALL_TILE = 420; // CSS pixels: a tile that is narrower looks the same with the small picture
const MOST_FULL = 4; // with more cameras on the screen, all are small

const READ_EVERY = 800; // milliseconds at least between two readings that are compared
const GLANCE_EVERY = 180; // the same on trial, for what a full picture that does not get through looks like at once
const FLOODED = 0.2; // of the packets of a glance
const FEWEST_LOST = 5; // packets
const STARVED = 1000; // milliseconds in which the full picture's packets come, and no picture
const TRICKLE = 100000; // bit/s: small pictures that are seconds apart are less
const LATE = 0.3; // seconds that pictures wait in the jitter buffer beyond the least
const LOST = 0.05; // of the packets, beyond what the relay itself lost
const FROZEN = 0.3; // seconds of a reading
const SLOW = 0.6; // of the frames that the camera sends
const DROPPED = 0.2; // of the frames
const FORGET = 1.002; // the least wait rises by this with each reading: clocks drift, and paths change

const LIMIT = 3; // symptoms, one for the line and one for the picture a reading, until the small picture is asked for
const LIMIT_ON_TRIAL = 2;
const FIRST_HOLD = 8000; // so long the line must be good before the full picture is tried again
const SPARED_HOLD = 2000; // the same where the SFU did not send the full picture: such a try takes nothing from anybody
const CALM = 4000; // and so long without loss
const LASTED = 5000; // a full picture that was on trial for longer, and then broke off, says that the line has changed
const AT_FIRST = 3; // tries that may fail: a line that varies comes back within half a minute
const LONGEST_HOLD = 120000; // from then on it doubles with each try that failed
const TRIAL = 15000; // so long the full picture is on trial
const TRUSTED = 60000; // the full picture has lasted: a later fall is a new one

// `tiles`: [{id, width}] of all cameras that are pulled, in CSS pixels; `alone`: the one that is shown above the others,
// if one is. A Map of what each needs on the screen.
export function planned(tiles, alone = "") {
  const many = tiles.length > MOST_FULL;
  const need = ({ id, width }) => {
    if (id === alone) return FULL;
    if (alone) return SMALL;
    return tiles.length === 1 || !(many || width < SMALL_TILE) ? FULL : SMALL;
  };
  return new Map(tiles.map((tile) => [tile.id, need(tile)]));
}

// No readings to compare with, and no full picture yet.
const nothing = { before: null, glanced: null, moved: null, full: false };

// What is known of the line before anything is: `narrow` if this browser's was a while ago.
export function unknown(now, narrow = false) {
  const phase = narrow ? "narrow" : "free";
  return { phase, cause: "line", score: 0, since: now, hold: FIRST_HOLD, failures: 0, fell: false, least: Infinity, ...nothing };
}

// The full picture is asked for once more, on a line of which this was known.
export function anew(state, now) {
  return state.phase === "narrow" ? state : { ...unknown(now), hold: state.hold, failures: state.failures };
}

// The full picture may be tried again.
export function due(state, now) {
  return state.phase === "narrow" && now - state.since >= state.hold;
}

export function tried(state, now) {
  const hold = Math.max(FIRST_HOLD, state.hold);
  return { ...state, phase: "trial", score: 0, since: now, hold, least: Infinity, ...nothing, before: state.before };
}

// The small picture is to be asked for, because of the "line" or the "picture".
export function fallen(state, cause, now, flooded = false) {
  const failed = state.phase === "trial" && !(flooded && now - state.since >= LASTED);
  // A line that carried it, and from one moment to the next does not, varies: it may be back as soon.
  const failures = failed ? state.failures + 1 : flooded ? 0 : state.failures;
  const longer = failed && failures > AT_FIRST ? Math.min(LONGEST_HOLD, 2 * state.hold) : state.hold;
  return { ...state, phase: "narrow", fell: true, cause, score: 0, since: now, failures, hold: flooded && !failed ? FIRST_HOLD : longer };
}

// The SFU has gone on sending the small picture all through a try: it watches the line itself, and knows when to send the
// full one.
export function spared(state, now) {
  return { ...fallen(state, "line", now), failures: state.failures, hold: SPARED_HOLD };
}

// The state after another reading. `reading`: totals and values of getStats() for one camera (numbers.js); `source`: what
// the camera sends by the relay's status, {width, fps, rate, loss}. Phases are "free", "narrow" and "trial"; `cause` of the
// last fall is the "line" or the "picture", which suffers on a slow machine, too. A trial is read several times a second.
export function judged(state, reading, source, now) {
  const { before } = state;
  if (!before || reading.packetsReceived < before.reading.packetsReceived) return { ...state, ...nothing, before: { reading, at: now } };
  if (!watchful(state)) return compared(state, reading, source, now);
  const next = glance(state, reading, source, now);
  return next.phase === "narrow" ? next : compared(next, reading, source, now);
}

// Whether it may turn out at any moment that the line does not carry the full picture.
export function watchful(state) {
  return state.phase === "trial" || (state.phase === "free" && !state.full);
}

// The full picture's first, which is large, may never be complete. What is lost, or comes for too long, says so.
function glance(state, reading, source, now) {
  const moved = state.moved?.frames === reading.framesDecoded ? state.moved : { frames: reading.framesDecoded, bytes: reading.videoBytes, at: now };
  const last = state.glanced;
  if (!last) return { ...state, moved, glanced: { reading, at: now } };
  if (now - last.at < GLANCE_EVERY) return { ...state, moved };
  const next = { ...state, moved, glanced: { reading, at: now } };
  const flooded = isFlooded(last.reading, reading, source);
  const waits = now - moved.at;
  const starved = waits >= STARVED && 8000 * (reading.videoBytes - moved.bytes) >= TRICKLE * waits;
  return flooded || starved ? fallen(next, "line", now, flooded) : next;
}

function compared(state, reading, source, now) {
  const { before } = state;
  if (now - before.at < READ_EVERY) return state;
  const waited = waiting(before.reading, reading);
  const found = symptoms(before.reading, reading, source, waited - state.least, (now - before.at) / 1000);
  const next = { ...state, before: { reading, at: now }, least: Math.min(state.least * FORGET, waited ?? Infinity) };
  const full = isFull(reading, source) && reading.framesDecoded > 0;
  next.full ||= full;
  if (state.phase === "narrow") return found.lossy && !full ? { ...next, since: Math.max(state.since, now + CALM - state.hold) } : next;
  // The SFU may send the small picture although the full one is asked for: then that one is not judged.
  if (!full) return { ...next, score: 0 };
  const score = found.line || found.picture ? state.score + found.line + found.picture : Math.max(0, state.score - 1);
  if (score >= (state.phase === "trial" ? LIMIT_ON_TRIAL : LIMIT)) {
    return fallen(next, found.line ? "line" : "picture", now, isFlooded(before.reading, reading, source));
  }
  if (state.phase === "trial" && now - state.since >= TRIAL) return { ...next, phase: "free", score: 0, since: now };
  const trusted = state.phase === "free" && now - state.since >= TRUSTED ? { hold: FIRST_HOLD, failures: 0 } : {};
  return { ...next, score, ...trusted };
}

function isFlooded(before, after, source) {
  const lost = after.packetsLost - before.packetsLost;
  const all = lost + after.packetsReceived - before.packetsReceived;
  return lost >= FEWEST_LOST && lost >= (FLOODED + 2 * (source.loss ?? 0)) * all;
}

// Whether a reading is of the full picture.
export function isFull(reading, source) {
  return !source.width || reading.width >= 0.9 * source.width;
}

// Mean seconds that the pictures of a reading waited in the jitter buffer; null if there were none.
function waiting(before, after) {
  const emitted = after.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
  return emitted > 0 ? (after.jitterBufferDelay - before.jitterBufferDelay) / emitted : null;
}

// What speaks for a line that is too narrow (`line`), and for pictures that suffer by it or by a slow machine (`picture`).
function symptoms(before, after, source, late, seconds) {
  const more = (name) => Math.max(0, (after[name] ?? 0) - (before[name] ?? 0));
  const share = (part, rest) => (part ? part / (part + rest) : 0);
  const lost = share(more("packetsLost"), more("packetsReceived"));
  // The browser's estimate follows what it gets, and lags behind: what arrives has had room.
  const less = (rate) => rate < 0.8 * source.rate;
  const narrow = after.incoming > 0 && less(after.incoming) && less((8 * more("videoBytes")) / seconds);
  const lossy = lost >= LOST + 2 * (source.loss ?? 0);
  const line = lossy || late >= LATE || narrow;
  // Pictures a second are of the last second, which small ones may have been part of.
  const slow = source.fps > 5 && isFull(before, source) && more("framesDecoded") > 0 && after.fps < SLOW * source.fps;
  const frozen = more("totalFreezesDuration") >= FROZEN;
  const dropped = share(more("framesDropped"), more("framesDecoded")) >= DROPPED;
  // A camera that pauses freezes, too: alone it is no sign of the line.
  return { lossy, line, picture: dropped || slow || (frozen && (line || lost > 0)) };
}
