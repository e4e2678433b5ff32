// Which cameras are visible: only those are pulled, because Cloudflare bills what it sends.

const LINGER = 5000; // a tile scrolled out of view for less is still playing when it comes back
const COVERED = 300000; // so long a camera shown large leaves those behind it running: closing it shows them at once
const MARGIN = "120px 0px"; // a tile just outside the window is about to become visible

export class Sight {
  #inside = new Set(); // cameras whose tile is in the window, or close to it
  #until = new Map(); // camera → when it may be released
  #ids = new WeakMap(); // element → camera
  #observer;
  #alone = 0; // since when one camera covers the others

  // onChange() is called when a tile enters or leaves the window, and when the page is hidden or shown.
  constructor(onChange) {
    this.#observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.#inside.add(this.#ids.get(target));
        else this.#inside.delete(this.#ids.get(target));
      }
      onChange();
    }, { rootMargin: MARGIN });
    document.addEventListener("visibilitychange", onChange);
  }

  watch(element, id) {
    this.#ids.set(element, id);
    this.#observer.observe(element);
  }

  forget(element, id) {
    this.#observer.unobserve(element);
    this.#inside.delete(id);
    this.#until.delete(id);
  }

  // Those of `ids` to be pulled: visible now or a moment ago, or heard. `alone` is the camera that covers the others,
  // if one does, which are pulled for some minutes more; `heard(id)` tells whether its sound is on or it is seen
  // elsewhere, which continues in a hidden page.
  pick(ids, { alone, heard }) {
    const now = performance.now();
    this.#alone = alone ? this.#alone || now : 0;
    const covered = alone && now - this.#alone >= COVERED;
    return ids.filter((id) => {
      const seen = !document.hidden && (id === alone || (!covered && this.#inside.has(id)));
      if (seen || heard(id)) this.#until.set(id, now + LINGER);
      return now < (this.#until.get(id) ?? 0);
    });
  }
}
