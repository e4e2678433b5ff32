// The relay's server-sent events, kept open as long as the page is.

import { at } from "./api.js";

const OLDEST = 15000; // a status arrives every second; a longer silence means a dead connection

export class Feed extends EventTarget {
  #source = null;
  #heard = 0;
  #last = "";
  #delay = 500;
  statusAt = performance.now(); // when the last status came; before the first one, when the page was opened

  constructor() {
    super();
    this.#open();
    setInterval(() => this.#check(), 2000);
    addEventListener("online", () => this.#reopen());
    document.addEventListener("visibilitychange", () => document.hidden || this.#check());
  }

  #open() {
    this.#heard = performance.now();
    // A new EventSource does not know the last id of the previous one.
    const source = new EventSource(at(`/api/events?last_event_id=${encodeURIComponent(this.#last)}`));
    this.#source = source;
    source.addEventListener("open", () => this.#say("link", "open"));
    source.addEventListener("status", (event) => {
      this.#heard = this.statusAt = performance.now();
      this.#delay = 500;
      this.#say("status", JSON.parse(event.data));
    });
    source.addEventListener("event", (event) => {
      this.#last = event.lastEventId;
      this.#say("event", JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      this.#say("link", "lost");
      // The browser retries by itself unless the answer was an error.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(() => source === this.#source && this.#reopen(), this.#delay);
        this.#delay = Math.min(this.#delay * 2, 10000);
      }
    });
  }

  #reopen() {
    this.#source.close();
    this.#open();
  }

  #check() {
    if (performance.now() - this.#heard > OLDEST) {
      this.#say("link", "lost");
      this.#reopen();
    }
  }

  #say(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
