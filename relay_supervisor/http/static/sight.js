// Which cameras are visible: only those are pulled, because Cloudflare bills what it sends.

const LINGER = 5000; // a tile scrolled out of view for less is still playing when it comes back
const COVERED = 300000; // so long a camera that fills the screen leaves those behind it running
const MARGIN = "120px 0px"; // a tile just outside the window is about to become visible

export class Sight {
  #inside = new Set(); // cameras whose tile is in the window, or close to it
  #until = new Map(); // camera → when it may be released
  #ids = new WeakMap(); // element → camera
  #observer;
  #filled = 0; // since when one camera fills the screen

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

  // Those of `ids` to be pulled: visible now or a moment ago, or heard. `alone` is the camera that is shown above the
  // others, if one is: these are pulled on, as closing it is to show them at once, and for minutes only while it `fills`
  // the screen. `heard(id)` tells whether its sound is on or it is seen elsewhere, which continues in a hidden page.
  pick(ids, { alone, fills = false, heard }) {
    const now = performance.now();
    this.#filled = fills ? this.#filled || now : 0;
    const covered = fills && now - this.#filled >= COVERED;
    return ids.filter((id) => {
      const seen = !document.hidden && (id === alone || (!covered && this.#inside.has(id)));
      if (seen || heard(id)) this.#until.set(id, now + LINGER);
      return now < (this.#until.get(id) ?? 0);
    });
  }
}
