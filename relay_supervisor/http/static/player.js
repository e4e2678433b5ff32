// Keeps every wanted camera playing, from wherever it can be.

import { lacking } from "./codecs.js";
import { Group } from "./group.js";
import { LocalConnection, Ways } from "./local.js";
import { audioNumbers, videoNumbers } from "./numbers.js";

const PER_VIEW = 32;
const LOOK_EVERY = 250; // milliseconds between two readings of the statistics while they are wanted soon
const TICK_EVERY = 1000; // … and otherwise

export class Player {
  #groups = []; // at Cloudflare
  #locals = new Map(); // camera → its group of one, played from the relay itself
  #ways = new Ways();
  #wanted = [];
  #qualities = {};
  #statuses = new Map();
  #numbers = new Map();
  #lacks = lacking(); // what the browser cannot decode
  #tickedAt = -Infinity;
  #looks = false; // whether statistics are being read
  #left = false; // the page is being unloaded, or kept by the browser for its history
  #counts = new WeakMap(); // connection → bytes received
  received = 0; // bytes from Cloudflare since the page was opened, including transport overhead

  // onStream(camera, stream) is called whenever a camera has another stream; onTick(numbers) after a reading of statistics
  // each second, onLook(numbers) after the others, which are made while lively(); still(camera) tells after how many
  // milliseconds without a picture it is not playing.
  constructor({ onStream, onTick, onLook, lively, still }) {
    this.onStream = onStream;
    this.onTick = onTick;
    this.onLook = onLook;
    this.lively = lively;
    this.still = still;
    setInterval(() => this.#beat(), LOOK_EVERY);
    addEventListener("online", () => {
      this.#ways.forget();
      this.#all.forEach((group) => group.cameras.length && group.renew());
    });
    addEventListener("pagehide", () => {
      this.#left = true;
      this.#all.forEach((group) => group.stop());
    });
    addEventListener("pageshow", (event) => {
      this.#left = false;
      if (event.persisted) this.#aim();
    });
  }

  get #all() {
    return [...this.#groups, ...this.#locals.values()];
  }

  // Set the cameras to play, by id, and the quality of those that offer two. Those already in a group stay there.
  want(ids, qualities = {}) {
    if (this.#left) return; // it is told that it is hidden after it was left
    this.#wanted = [...ids];
    this.#qualities = qualities;
    this.#aim();
  }

  // Each wanted camera is played from where it can be.
  #aim() {
    const here = new Set(this.#wanted.filter((id) => this.#ways.isLocal(id)));
    for (const [id, group] of this.#locals) if (!here.has(id)) group.want([]);
    for (const id of here) {
      if (!this.#locals.has(id)) this.#locals.set(id, this.#direct(id));
      this.#locals.get(id).want([id], this.#qualities);
    }
    this.#gather(this.#wanted.filter((id) => !here.has(id) && this.#ways.isShown(id)));
  }

  #direct(id) {
    const make = () => new LocalConnection(() => this.#ways.publication(id), () => this.#ways.undecodable(id));
    return new Group(this.onStream, make, (connection) => {
      this.#ways.failed(id, connection);
      if (!this.#left) this.#aim();
    });
  }

  #gather(ids) {
    const wanted = new Set(ids);
    const lists = this.#groups.map((group) => group.cameras.filter((id) => wanted.delete(id)));
    for (const id of wanted) {
      const room = lists.find((list) => list.length < PER_VIEW);
      if (room) room.push(id);
      else lists.push([id]);
    }
    lists.forEach((list, index) => {
      this.#groups[index] ??= new Group(this.onStream);
      this.#groups[index].want(list, this.#qualities);
    });
  }

  follow(cameras) {
    this.learn(cameras);
    this.#statuses = new Map(cameras.map((camera) => [camera.id, camera]));
    const now = performance.now();
    for (const group of this.#groups) group.follow(this.#statuses, now);
    for (const [id, group] of this.#locals) group.follow(new Map([[id, this.#ways.followed(id)]]), now);
  }

  // What the relay says of where cameras can be played from, before anything is.
  learn(cameras) {
    this.#ways.learn(cameras);
    if (!this.#left) this.#aim();
  }

  check() {
    for (const group of this.#all) group.check();
  }

  playing(id) {
    const now = performance.now();
    return this.#all.some((group) => group.playing(id, now, this.still(id)));
  }

  wants(id) {
    return this.#all.some((group) => group.cameras.includes(id));
  }

  // Whether a camera is played from the relay itself.
  direct(id) {
    return this.#ways.isLocal(id);
  }

  // From where a camera is played, in words: empty where there is nothing to choose.
  way(id) {
    return this.#ways.words(id, this.#all.find((group) => group.cameras.includes(id))?.connection);
  }

  unavailable(id) {
    for (const group of this.#groups) {
      const found = group.active?.unavailable.find((entry) => entry.camera === id);
      if (found) return found.reason;
    }
    return "";
  }

  // Why this browser can show no picture at all.
  get lacks() {
    return this.#lacks;
  }

  // Why this page shows no picture of a camera that others see.
  fault(id) {
    if (this.#lacks && !this.playing(id)) return this.#lacks;
    for (const group of this.#all) {
      const found = group.connection?.faults.get(id);
      if (found) return found;
    }
    return "";
  }

  // Which picture of a camera the relay itself sends here, where it is played from there and that is known.
  sent(id) {
    return this.#all.find((group) => group.cameras.includes(id))?.connection?.sent ?? "";
  }

  // Why nothing is shown of a camera: the relay could open no view, for now.
  refusal(id) {
    const failing = ({ cameras, connection }) => cameras.includes(id) && (!connection || (connection.dead && !this.playing(id)));
    return this.#all.find(failing)?.refusal ?? "";
  }

  numbers(id) {
    return this.#numbers.get(id) ?? {};
  }

  get connections() {
    return this.#all.map((group) => group.connection).filter(Boolean);
  }

  // Current receive statistics per camera, from getStats().
  async stats() {
    const result = {};
    for (const connection of this.connections) {
      const report = await connection.pc.getStats();
      const pair = [...report.values()].find((entry) => entry.type === "candidate-pair" && entry.nominated);
      for (const entry of report.values()) {
        if (entry.type === "transport" && !connection.local) this.#count(connection, entry.bytesReceived ?? 0);
        if (entry.type !== "inbound-rtp") continue;
        const track = connection.tracks.get(entry.mid);
        if (!track) continue;
        const numbers = (result[track.camera] ??= { bytesReceived: 0, packetsLost: 0, packetsReceived: 0 });
        numbers.bytesReceived += entry.bytesReceived ?? 0;
        numbers.packetsLost += entry.packetsLost ?? 0;
        numbers.packetsReceived += entry.packetsReceived ?? 0;
        if (track.kind === "video") Object.assign(numbers, videoNumbers(entry), { incoming: pair?.availableIncomingBitrate ?? 0 });
        else Object.assign(numbers, audioNumbers(entry));
      }
    }
    return result;
  }

  #count(connection, total) {
    this.received += Math.max(0, total - (this.#counts.get(connection) ?? 0));
    this.#counts.set(connection, total);
  }

  // A browser may get its codec while the page is open, or while a connection is being made: then pictures are asked for.
  #look() {
    this.#lacks = lacking();
    if (!this.#lacks) this.#all.forEach((group) => group.see());
  }

  async #beat() {
    const now = performance.now();
    const ticks = now - this.#tickedAt >= TICK_EVERY - LOOK_EVERY / 2;
    if (this.#looks || !(ticks || this.lively())) return;
    this.#looks = true;
    try {
      this.#numbers = new Map(Object.entries(await this.stats()));
    } catch {
      return; // a connection was closed meanwhile
    } finally {
      this.#looks = false;
    }
    if (ticks) this.#tick(now);
    else this.onLook(this.#numbers);
  }

  #tick(now) {
    this.#tickedAt = now;
    this.#look();
    for (const group of this.#all) {
      group.watch(this.#numbers, this.#statuses, now, this.still);
      group.report(this.#numbers, now);
    }
    this.onTick(this.#numbers);
  }
}

// For tests and debugging: what the page receives, read-only, as `window.relay`.
export function expose(player) {
  Object.defineProperty(window, "relay", {
    value: Object.freeze({
      get pcs() { return player.connections.map((connection) => connection.pc); },
      get tracks() { return player.connections.flatMap((connection) => [...connection.tracks.values()]); },
      stats: () => player.stats(),
    }),
  });
}
