// Which picture of each camera this page asks for: what it needs on the screen, what its line carries, and what a person
// has chosen. Cameras that offer one picture are left alone.

import { read, write } from "./kept.js";
import { FULL, SMALL, anew, due, fallen, isFull, judged, planned, spared, tried, unknown, watchful } from "./quality.js";

const REMEMBERED = 600000; // milliseconds for which a narrow line is expected to be narrow still
const PROVED = 20000; // the full picture has played for so long: the next page need not begin with the small one
const STILL = 3000;
const LIVELY = 15000; // milliseconds for which a full picture that has just been asked for is looked at more often
const OVERDUE = 4000; // beyond a keyframe's interval: the SFU sends the small picture although the full one was asked for
const OVERDUE_ON_TRIAL = 8000; // while the small one is made as before, and the SFU may be probing
const STEPPED_DOWN = 2000; // the same, where the full one had come
const WORDS = { line: "small: line too narrow", picture: "small: full is too slow here" };

export class Renditions {
  #pins = read("quality", {}); // camera → "full" or "small", as a person chose
  #statuses = new Map();
  #lines = new Map(); // camera → what is known of the line by its pictures (quality.js)
  #asked = new Map(); // camera → what is asked for
  #needed = new Map(); // camera → what it needs on the screen
  #smallSince = new Map(); // camera → since when it is small although asked for full
  #full = new Set(); // cameras whose full picture has come since it was asked for
  #came = new Map(); // camera → [{frames, at}]: when keyframes had come, the last few times, while it is small
  #seen = new Set(); // cameras of which pictures have arrived
  #line = read("line", {}); // {narrow, at}: how this browser's line was the last time

  // `cameras`: the status of each.
  learn(cameras) {
    this.#statuses = new Map(cameras.map((camera) => [camera.id, camera]));
  }

  offered(id) {
    const mode = this.#statuses.get(id)?.renditions ?? "off";
    return mode !== "off";
  }

  pinned(id) {
    return this.#pins[id] ?? "";
  }

  // `quality` empty: the page decides.
  pin(id, quality) {
    const { [id]: _, ...others } = this.#pins;
    this.#pins = quality ? { ...others, [id]: quality } : others;
    write("quality", this.#pins);
  }

  // What to ask for, by camera, of those that offer both pictures. `tiles`: [{id, width}] of all that are pulled;
  // `alone`: the one that is shown above the others; `direct(id)`: whether it is played from the relay itself, where a
  // change interrupts the picture and small tiles save nothing.
  ask(tiles, { alone = "", direct = () => false } = {}) {
    const now = performance.now();
    const needed = planned(tiles, alone);
    for (const { id } of tiles) {
      if (direct(id)) needed.set(id, FULL);
      if (needed.get(id) === FULL && !(this.#needed.get(id) === FULL && this.#lines.has(id))) this.#begin(id, now, direct(id));
    }
    this.#needed = needed;
    const offered = tiles.map(({ id }) => id).filter((id) => this.offered(id));
    this.#asked = new Map(offered.map((id) => [id, this.#quality(id)]));
    return Object.fromEntries(this.#asked);
  }

  #quality(id) {
    if (this.pinned(id)) return this.pinned(id);
    const narrow = this.#lines.get(id)?.phase === "narrow";
    return this.#needed.get(id) === FULL && !narrow ? FULL : SMALL;
  }

  // It is to be full from now on, where other pictures tell that the line is narrow, or nothing is known of it yet.
  #begin(id, now, direct) {
    const narrow = [...this.#lines.values()].find((line) => line.phase === "narrow");
    const before = this.#lines.get(id);
    if (narrow) this.#lines.set(id, { ...narrow, before: null });
    else this.#lines.set(id, before && this.#seen.has(id) ? anew(before, now) : this.#first(now, direct));
    this.#try(id, now);
  }

  #first(now, direct) {
    const { narrow: known, at } = this.#line;
    // The small picture comes first where the line is not known: the full one is tried as soon as that has arrived. Played
    // from the relay itself that would take two connections, over a line that is rarely narrow.
    if (known === undefined && !direct) return { ...unknown(now, true), hold: 0 };
    return unknown(now, known && Date.now() - at < REMEMBERED);
  }

  // Have the full picture tried where it is time to. One at a time: cameras that are tried together would fail together.
  #try(id, now) {
    const line = this.#lines.get(id);
    const trying = [...this.#lines.values()].some((other) => other.phase === "trial" && now - other.since < 5000);
    if (due(line, now) && this.#seen.has(id) && !trying) this.#lines.set(id, tried(line, now));
  }

  // Whether the next reading should not wait for a second: what is asked for next may depend on it at any moment.
  lively(now = performance.now()) {
    return [...this.#lines.values()].some((line) => now - line.since < LIVELY && (watchful(line) || !line.hold));
  }

  // Another reading of the statistics: Map camera → numbers.
  watch(numbers, now = performance.now()) {
    for (const [id, reading] of numbers) {
      if (!this.#asked.has(id)) continue;
      if (reading.framesDecoded > 0) this.#seen.add(id);
      this.#note(id, reading.keyFramesDecoded, now);
      const line = this.#lines.get(id);
      if (!line || this.#needed.get(id) !== FULL || this.pinned(id)) continue;
      this.#judge(id, line, reading, now);
    }
    for (const id of this.#lines.keys()) if (!this.#asked.has(id)) this.#lines.delete(id);
  }

  #judge(id, line, reading, now) {
    const source = this.#source(id);
    let next = judged(line, reading, source, now);
    if (next.phase === "narrow" && line.phase !== "narrow") this.#remember(true);
    // The small picture that the SFU sends by itself is one in ten seconds until it is asked for: nobody counts as
    // its viewer.
    if (this.#steppedDown(id, isFull(reading, source), now) && next.phase !== "narrow") {
      next = next.phase === "trial" && !next.full ? spared(next, now) : fallen(next, "line", now);
      this.#remember(true);
    }
    if (next.phase !== "narrow" && isFull(reading, source) && now - next.since > PROVED && this.#line.narrow !== false) this.#remember(false);
    this.#lines.set(id, next);
    this.#try(id, now);
  }

  // Whether the SFU sends the small picture although the full one was asked for. `full`: what came last was that.
  #steppedDown(id, full, now) {
    if (this.#asked.get(id) !== FULL) this.#full.delete(id);
    else if (full) this.#full.add(id);
    if (full || this.#asked.get(id) !== FULL) this.#smallSince.delete(id);
    else if (!this.#smallSince.has(id)) this.#smallSince.set(id, now);
    const since = this.#smallSince.get(id) ?? Infinity;
    return now - since >= (this.#full.has(id) ? STEPPED_DOWN : this.#overdue(id));
  }

  #overdue(id) {
    const overdue = this.#lines.get(id)?.phase === "trial" ? OVERDUE_ON_TRIAL : OVERDUE;
    return overdue + 1000 * (this.#statuses.get(id)?.video?.keyframe_interval ?? 0);
  }

  #remember(narrow) {
    this.#line = { narrow, at: Date.now() };
    write("line", this.#line);
  }

  #source(id) {
    const { video = {} } = this.#statuses.get(id) ?? {};
    return { width: video.width ?? 0, fps: video.fps ?? 0, rate: video.bitrate_in ?? 0, loss: video.loss_out ?? 0 };
  }

  // In words, why a camera is small where it would be full, and how often its small picture comes where it does not move;
  // empty where nothing is remarkable. `sent`: which picture the relay itself sends, where it is played from there.
  words(id, sent = "") {
    if (!this.offered(id) || !this.#asked.has(id)) return "";
    if (this.#asked.get(id) === SMALL && sent === FULL) return "full: no small picture is made";
    return [this.#why(id), this.#asked.get(id) === SMALL ? this.#pace(id) : ""].filter(Boolean).join(", ");
  }

  #why(id) {
    if (this.pinned(id) === SMALL) return "small, as chosen";
    if (this.pinned(id)) return this.#needed.get(id) === SMALL ? "full, as chosen" : "";
    if (this.#needed.get(id) !== FULL) return "";
    const line = this.#lines.get(id);
    if (this.#asked.get(id) === FULL) {
      const overdue = performance.now() - (this.#smallSince.get(id) ?? Infinity) > this.#overdue(id);
      return overdue || (line?.phase === "trial" && line.fell && !line.full) ? WORDS.line : "";
    }
    return line?.hold ? WORDS[line.cause] : "";
  }

  // Of small pictures made of keyframes alone: as they came, at first as the camera's keyframes do.
  #pace(id) {
    const { renditions, rendition, video } = this.#statuses.get(id);
    if (renditions === "smooth" && !rendition?.reason) return "";
    const [first, last] = [this.#came.get(id)?.at(0), this.#came.get(id)?.at(-1)];
    const measured = last && last.frames - first.frames >= 3 ? (last.at - first.at) / (last.frames - first.frames) / 1000 : 0;
    const interval = Math.round(measured || (video?.keyframe_interval ?? 0));
    return interval > 1 ? `a picture every ${interval} s` : interval ? "a picture a second" : "a picture every few seconds";
  }

  // Keyframes: between them, they are repeated.
  #note(id, frames, now) {
    const came = this.#asked.get(id) === SMALL ? this.#came.get(id) ?? [] : [];
    if (frames < came.at(-1)?.frames) came.length = 0; // on another connection
    if (frames !== came.at(-1)?.frames) came.push({ frames, at: now });
    this.#came.set(id, came.slice(-6));
  }

  // After how many milliseconds without a picture it is not playing: small ones made of keyframes alone are seconds apart.
  still(id) {
    const camera = this.#statuses.get(id);
    if (this.#asked.get(id) !== SMALL || (camera?.rendition?.active ?? camera?.renditions) === "smooth") return STILL;
    return 1000 * (2 + 2 * Math.max(5, camera?.video?.keyframe_interval ?? 0));
  }
}
