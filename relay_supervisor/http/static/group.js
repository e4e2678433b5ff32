// The cameras of one connection: opened, kept up with publications, replaced when it dies, pulled again when frozen.

import { lacking } from "./codecs.js";
import { Connection } from "./connection.js";
import { SMALL } from "./quality.js";

const KEEPALIVE = 30000; // a view expires when its page is silent for three minutes
const STANDS_STILL = 6000;
const UNDECODED = 20000; // for a picture that comes direct and is not decoded: by then the relay knows whether it can be
const PLAYING = 3000;
const REPORT_EVERY = 5000;
const ASK_AGAIN = 1500; // first wait while the view is behind the relay's publications; doubles while asking does not help
const FIRST_DELAY = 500;
const LONGEST_DELAY = 10000;

export class Group {
  cameras = [];
  qualities = {}; // camera → "full" or "small", of those that offer both
  connection = null;
  refusal = ""; // why the relay could open no view
  #next = null;
  #delay = FIRST_DELAY;
  #timer = 0; // of the next connection after a failure, as long as none is being made
  #viewable = []; // cameras that can be viewed, with their publications, by the last status
  #tried = []; // the same when a connection was last tried
  #askedAt = 0;
  #reportedAt = 0;
  #patience = ASK_AGAIN;
  #seenInstead = null; // the blind connection that is being replaced
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

  want(cameras, wishes = {}) {
    const qualities = Object.fromEntries(cameras.filter((id) => wishes[id]).map((id) => [id, wishes[id]]));
    const otherwise = JSON.stringify(qualities) !== JSON.stringify(this.qualities);
    const changed = otherwise || cameras.join() !== this.cameras.join();
    this.cameras = cameras;
    this.qualities = qualities;
    for (const id of this.#moved.keys()) if (!cameras.includes(id)) this.#moved.delete(id);
    if (!cameras.length) return this.stop();
    // After a failure the next connection is made in its time, however often this is called.
    if (!this.active && !this.#timer) this.#open();
    else if (this.active && otherwise && this.#picturesOtherwise(this.active)) this.renew();
    else if (changed) this.#ask();
  }

  // Whether a connection to the relay itself was made for other pictures: it has those for which it was made, and is
  // replaced to have others. Without a wish it has the full ones.
  #picturesOtherwise(connection) {
    const small = (qualities) => this.cameras.filter((id) => qualities[id] === SMALL).join();
    return Boolean(connection.local) && small(connection.qualities) !== small(this.qualities);
  }

  stop() {
    this.#waitNoMore();
    this.connection?.close();
    this.#next?.close();
    this.connection = this.#next = null;
  }

  // Reconnect at once: the network is back, or a camera became viewable.
  renew() {
    this.#delay = FIRST_DELAY;
    this.#waitNoMore();
    if (!this.#next) this.#open();
  }

  #waitNoMore() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  // The browser can decode pictures: replace a connection that was made without them. One that fails is tried again later.
  see() {
    const { connection } = this;
    if (!connection?.blind || connection === this.#seenInstead || !this.cameras.length) return;
    this.#seenInstead = connection;
    this.renew();
  }

  // Ask the relay at once whether it still knows the view.
  check() {
    this.#ask();
  }

  // `statuses`: camera id → its status. Decides whether the view is behind the relay's publications.
  follow(statuses, now) {
    const connection = this.connection;
    this.#viewable = this.cameras.filter((id) => statuses.get(id)?.viewable).map((id) => `${id} ${statuses.get(id).publication}`);
    this.#tried = this.#tried.filter((one) => this.#viewable.includes(one));
    if (!connection || connection.dead) {
      // A camera has become viewable: do not wait out a long delay.
      if (this.#timer && this.#viewable.some((one) => !this.#tried.includes(one))) this.renew();
      return;
    }
    const behind = connection.unheard || this.cameras.some((id) => {
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

  // `numbers`: camera id → its receive statistics. Cameras that should move but do not are pulled again; `still(id)` is how
  // many milliseconds a picture may stand without being frozen.
  watch(numbers, statuses, now, still = () => PLAYING) {
    if (this.connection?.pc?.connectionState !== "connected") return;
    const frozen = [];
    for (const id of this.cameras) {
      const { framesDecoded: frames = 0, videoBytes: bytes = 0 } = numbers.get(id) ?? {};
      const last = this.#moved.get(id);
      const live = statuses.get(id)?.state === "live" && this.connection.has(id);
      if (!last || frames !== last.frames || !live) {
        this.#moved.set(id, { frames, bytes, at: now, patience: Math.max(STANDS_STILL, still(id)) });
        continue;
      }
      const shortest = this.connection.local && bytes > last.bytes ? UNDECODED : 0;
      last.bytes = bytes;
      if (now - last.at > Math.max(last.patience, shortest)) {
        frozen.push(id);
        Object.assign(last, { at: now, patience: Math.min(last.patience * 2, 60000) });
      }
    }
    // A hidden page does not decode, and neither does a browser without the codec: to pull again would not help.
    if (frozen.length && !document.hidden && !lacking()) this.#ask(frozen);
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

  playing(id, now, within = PLAYING) {
    const last = this.#moved.get(id);
    return Boolean(last && last.frames > 0 && now - last.at < within);
  }

  #ask(stale = []) {
    this.#askedAt = performance.now();
    this.connection?.update(this.cameras, stale, this.qualities);
  }

  async #open() {
    this.#tried = this.#viewable;
    const next = (this.#next = this.make());
    next.addEventListener("stream", ({ detail }) => this.#show(next, detail));
    next.addEventListener("ready", () => this.#takeOver(next));
    next.addEventListener("dead", () => this.#lost(next));
    try {
      await next.open(this.cameras, this.qualities);
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
    // The wanted cameras, or pictures of them, may have changed since it was opened.
    const { cameras, qualities } = connection;
    if (this.#picturesOtherwise(connection)) this.renew();
    else if (cameras.join() !== this.cameras.join() || JSON.stringify(qualities ?? {}) !== JSON.stringify(this.qualities)) this.#ask();
  }

  #lost(connection) {
    if (connection === this.#next) this.#next = null;
    else if (connection !== this.connection) return;
    if (connection === this.connection && connection.pc?.connectionState !== "connected") {
      connection.close();
      this.connection = null;
    } else if (connection !== this.connection) connection.close();
    if (!this.#next) this.#wait();
    if (connection !== this.connection) this.onFailed(connection); // they may be played another way from now on
  }

  #wait() {
    this.#waitNoMore();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#open();
    }, this.#delay * (0.5 + Math.random() / 2));
    this.#delay = Math.min(this.#delay * 2, LONGEST_DELAY);
  }
}
