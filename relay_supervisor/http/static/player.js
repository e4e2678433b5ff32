// Keeps every wanted camera playing: opens connections, follows publications, detects frozen pictures.

import { lacking } from "./codecs.js";
import { Connection } from "./connection.js";
import { LocalConnection, Ways } from "./local.js";
import { audioNumbers, videoNumbers } from "./numbers.js";

const PER_VIEW = 32;
const KEEPALIVE = 30000; // a view expires when its page is silent for three minutes
const STANDS_STILL = 6000;
const UNDECODED = 20000; // for a picture that comes direct and is not decoded: by then the relay knows whether it can be
const REPORT_EVERY = 5000;
const ASK_AGAIN = 1500; // first wait while the view is behind the relay's publications; doubles while asking does not help
const FIRST_DELAY = 500;
const LONGEST_DELAY = 10000;

// The cameras of one connection, and the connection's replacement when it dies.
class Group {
  cameras = [];
  connection = null;
  refusal = ""; // why the relay could open no view
  #next = null;
  #delay = FIRST_DELAY;
  #timer = 0;
  #askedAt = 0;
  #reportedAt = 0;
  #patience = ASK_AGAIN;
  #moved = new Map(); // camera → {frames, bytes, at, patience}

  // make() returns a connection; onFailed(connection) is called when it could not be made.
  constructor(onStream, make = () => new Connection(), onFailed = () => {}) {
    this.onStream = onStream;
    this.make = make;
    this.onFailed = onFailed;
  }

  get active() {
    return this.connection ?? this.#next;
  }

  want(cameras) {
    const changed = cameras.join() !== this.cameras.join();
    this.cameras = cameras;
    for (const id of this.#moved.keys()) if (!cameras.includes(id)) this.#moved.delete(id);
    if (!cameras.length) return this.stop();
    if (!this.connection && !this.#next) this.#open();
    else if (changed) this.#ask();
  }

  stop() {
    clearTimeout(this.#timer);
    this.connection?.close();
    this.#next?.close();
    this.connection = this.#next = null;
  }

  // Reconnect at once: the network is back, or a camera became viewable.
  renew() {
    this.#delay = FIRST_DELAY;
    clearTimeout(this.#timer);
    if (!this.#next) this.#open();
  }

  // Ask the relay at once whether it still knows the view.
  check() {
    this.#ask();
  }

  // `statuses`: camera id → its status. Decides whether the view is behind the relay's publications.
  follow(statuses, now) {
    const connection = this.connection;
    if (!connection) {
      const any = this.cameras.some((id) => statuses.get(id)?.viewable);
      // A camera has become viewable: do not wait out a long delay.
      if (any && !this.#next && this.#delay > 2 * FIRST_DELAY) this.renew();
      return;
    }
    const behind = this.cameras.some((id) => {
      const status = statuses.get(id);
      return status?.viewable && (!connection.has(id) || [...connection.tracks.values()].some(
        (track) => track.camera === id && track.publication !== status.publication));
    });
    const surplus = [...connection.tracks.values()].some((track) => !this.cameras.includes(track.camera));
    if (!behind) this.#patience = ASK_AGAIN;
    if (now - this.#askedAt <= (behind || surplus ? this.#patience : KEEPALIVE)) return;
    if (behind) this.#patience = Math.min(this.#patience * 2, KEEPALIVE / 2);
    this.#ask();
  }

  // `numbers`: camera id → its receive statistics. Cameras that should move but do not are pulled again.
  watch(numbers, statuses, now) {
    if (this.connection?.pc?.connectionState !== "connected") return;
    const still = [];
    for (const id of this.cameras) {
      const { framesDecoded: frames = 0, videoBytes: bytes = 0 } = numbers.get(id) ?? {};
      const last = this.#moved.get(id);
      const live = statuses.get(id)?.state === "live" && this.connection.has(id);
      if (!last || frames !== last.frames || !live) {
        this.#moved.set(id, { frames, bytes, at: now, patience: STANDS_STILL });
        continue;
      }
      const shortest = this.connection.local && bytes > last.bytes ? UNDECODED : 0;
      last.bytes = bytes;
      if (now - last.at > Math.max(last.patience, shortest)) {
        still.push(id);
        Object.assign(last, { at: now, patience: Math.min(last.patience * 2, 60000) });
      }
    }
    // A hidden page does not decode, and neither does a browser without the codec: to pull again would not help.
    if (still.length && !document.hidden && !lacking()) this.#ask(still);
  }

  // Report to the relay what is received of its cameras; a hidden page does not decode, and reports nothing.
  report(numbers, now) {
    if (document.hidden || now - this.#reportedAt < REPORT_EVERY) return;
    if (this.connection?.pc?.connectionState !== "connected") return;
    this.#reportedAt = now;
    this.connection.report(this.cameras.filter((id) => numbers.has(id)).map((id) => {
      const { videoBytes, framesDecoded } = numbers.get(id);
      return { camera: id, bytes: videoBytes ?? 0, frames: framesDecoded ?? 0 };
    }));
  }

  playing(id, now) {
    const last = this.#moved.get(id);
    return Boolean(last && last.frames > 0 && now - last.at < 3000);
  }

  #ask(stale = []) {
    this.#askedAt = performance.now();
    this.connection?.update(this.cameras, stale);
  }

  async #open() {
    const next = (this.#next = this.make());
    next.addEventListener("stream", ({ detail }) => this.#show(next, detail));
    next.addEventListener("ready", () => this.#takeOver(next));
    next.addEventListener("dead", () => this.#lost(next));
    try {
      await next.open(this.cameras);
    } catch (error) {
      // Without a status it is the network's error, or there is nothing to view yet.
      this.refusal = error.status ? error.message : "";
      this.#lost(next);
    }
  }

  #show(connection, { camera, stream }) {
    // While an old connection still plays, its picture stays until the new one is connected.
    if (connection === this.connection || !this.connection) this.onStream(camera, stream);
  }

  #takeOver(connection) {
    this.#delay = FIRST_DELAY;
    this.refusal = "";
    if (connection === this.connection) return;
    const old = this.connection;
    this.connection = connection;
    this.#next = null;
    // Its frames are counted anew. What did not help before is not tried sooner.
    for (const last of this.#moved.values()) Object.assign(last, { frames: 0, bytes: 0, at: performance.now() });
    this.#askedAt = performance.now();
    for (const id of this.cameras) if (connection.stream(id)) this.onStream(id, connection.stream(id));
    old?.close();
    // The wanted cameras may have changed since it was opened.
    if (connection.cameras.join() !== this.cameras.join()) this.#ask();
  }

  #lost(connection) {
    if (connection === this.#next) this.#next = null;
    else if (connection !== this.connection) return;
    if (connection === this.connection && connection.pc?.connectionState !== "connected") {
      connection.close();
      this.connection = null;
    } else if (connection !== this.connection) connection.close();
    clearTimeout(this.#timer);
    if (connection !== this.connection) this.onFailed(connection);
    if (!this.cameras.length) return; // they are played another way
    this.#timer = setTimeout(() => !this.#next && this.cameras.length && this.#open(), this.#delay * (0.5 + Math.random() / 2));
    this.#delay = Math.min(this.#delay * 2, LONGEST_DELAY);
  }
}

export class Player {
  #groups = []; // at Cloudflare
  #locals = new Map(); // camera → its group of one, played from the relay itself
  #ways = new Ways();
  #wanted = [];
  #statuses = new Map();
  #numbers = new Map();
  #lacks = lacking(); // what the browser cannot decode
  #left = false; // the page is being unloaded, or kept by the browser for its history
  #counts = new WeakMap(); // connection → bytes received
  received = 0; // bytes from Cloudflare since the page was opened, including transport overhead

  // onStream(camera, stream) is called whenever a camera has another stream; onTick() after each reading of statistics.
  constructor({ onStream, onTick }) {
    this.onStream = onStream;
    this.onTick = onTick;
    setInterval(() => this.#tick(), 1000);
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

  // Set the cameras to play, by id. Those already in a group stay there.
  want(ids) {
    if (this.#left) return; // it is told that it is hidden after it was left
    this.#wanted = [...ids];
    this.#aim();
  }

  // Each wanted camera is played from where it can be.
  #aim() {
    const here = new Set(this.#wanted.filter((id) => this.#ways.isLocal(id)));
    for (const [id, group] of this.#locals) if (!here.has(id)) group.want([]);
    for (const id of here) {
      if (!this.#locals.has(id)) this.#locals.set(id, this.#direct(id));
      this.#locals.get(id).want([id]);
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
      this.#groups[index].want(list);
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
    return this.#all.some((group) => group.playing(id, now));
  }

  wants(id) {
    return this.#all.some((group) => group.cameras.includes(id));
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

  // Why nothing is shown of a camera: the relay could open no view, for now.
  refusal(id) {
    return this.#all.find((group) => group.cameras.includes(id) && !group.connection)?.refusal ?? "";
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
      for (const entry of report.values()) {
        if (entry.type === "transport" && !connection.local) this.#count(connection, entry.bytesReceived ?? 0);
        if (entry.type !== "inbound-rtp") continue;
        const track = connection.tracks.get(entry.mid);
        if (!track) continue;
        const numbers = (result[track.camera] ??= { bytesReceived: 0, packetsLost: 0, packetsReceived: 0 });
        numbers.bytesReceived += entry.bytesReceived ?? 0;
        numbers.packetsLost += entry.packetsLost ?? 0;
        numbers.packetsReceived += entry.packetsReceived ?? 0;
        if (track.kind === "video") Object.assign(numbers, videoNumbers(entry));
        else Object.assign(numbers, audioNumbers(entry));
      }
    }
    return result;
  }

  #count(connection, total) {
    this.received += Math.max(0, total - (this.#counts.get(connection) ?? 0));
    this.#counts.set(connection, total);
  }

  // A browser may get its codec while the page is open: then it is asked for the pictures.
  #look() {
    const before = this.#lacks;
    this.#lacks = lacking();
    if (before && !this.#lacks) this.#all.forEach((group) => group.cameras.length && group.renew());
  }

  async #tick() {
    const now = performance.now();
    this.#look();
    try {
      this.#numbers = new Map(Object.entries(await this.stats()));
    } catch {
      return; // a connection was closed meanwhile
    }
    for (const group of this.#all) {
      group.watch(this.#numbers, this.#statuses, now);
      group.report(this.#numbers, now);
    }
    this.onTick();
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
