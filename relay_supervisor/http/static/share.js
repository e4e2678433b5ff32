// Links to one camera for people who may see nothing else: made, shown in each form in which they are used, listed, revoked.

import { at, call } from "./api.js";
import { linked } from "./banner.js";
import { confirmed } from "./confirm.js";
import { counted } from "./format.js";
import { text } from "./tile.js";

const LOOK_AGAIN = 3000;

const part = (name) => document.getElementById(name);

export class Share {
  #camera = null;

  constructor() {
    this.dialog = part("share");
    this.seconds = part("share-seconds");
    this.said = part("share-said");
    part("share-make").addEventListener("click", () => this.#try(() => this.#make()));
    this.dialog.addEventListener("click", (event) => {
      const copied = event.target.closest("[data-copy]");
      if (copied) this.#copy(part(copied.dataset.copy));
      const revoked = event.target.closest("[data-revoke]");
      if (revoked) this.#try(() => this.#revoke(revoked));
    });
    this.dialog.addEventListener("focusin", ({ target }) => target.readOnly && target.select());
    setInterval(() => this.dialog.open && !document.hidden && this.#list().catch(() => {}), LOOK_AGAIN);
  }

  // Fails with the relay's message when links are switched off.
  async open(camera) {
    this.#camera = camera;
    const { enabled } = await this.#list();
    if (!enabled) throw new Error('Links to cameras are switched off here. Set viewers.access to "links" and restart');
    text(part("share-title"), `Watch ${camera.name}`);
    text(this.said, "Anyone with a link can watch this camera, and no other, until the link ends or is revoked.");
    part("share-made").hidden = true;
    this.dialog.showModal();
  }

  async #try(action) {
    try {
      await action();
    } catch (error) {
      text(this.said, error.message);
    }
  }

  async #make() {
    const wanted = { seconds: Number(this.seconds.value) };
    const { path, whep_path: whep, expires_at: end, frame_ancestors: sites } = await call("POST", `/api/cameras/${this.#camera.id}/link`, wanted);
    part("share-link").value = at(path);
    part("share-frame").value = framed(at(path), this.#camera.name);
    part("share-whep").value = whep ? at(whep) : "";
    part("share-players").hidden = !whep;
    for (const until of this.dialog.querySelectorAll("[data-until]")) text(until, `until ${date(end)}`);
    part("share-framing").replaceChildren(...linked(sites.length
      ? `It may be put into pages of ${sites.join(", ")}.`
      : "No site may show it in a frame yet: name yours in `viewers.frame_ancestors`, and restart the relay."));
    part("share-made").hidden = false;
    text(this.said, "Here it is. Whoever has it can watch.");
    await this.#list();
  }

  async #list() {
    const answer = await call("GET", "/api/links");
    text(part("share-count"), String(answer.links.filter((link) => !link.revoked_at).length));
    const rows = answer.links.map((link) => [link, described(link)]);
    const shown = rows.map(([, words]) => words).join("\n");
    if (part("share-given").dataset.shown !== shown) {
      part("share-given").dataset.shown = shown;
      part("share-given").replaceChildren(...rows.map(([link, words]) => row(link, words)));
    }
    return answer;
  }

  async #revoke({ dataset: { revoke: id, words } }) {
    if (!(await confirmed(`Revoke the link to ${words}? Whoever watches with it is cut off.`, "Revoke"))) return;
    const { saved } = await call("DELETE", `/api/links/${encodeURIComponent(id)}`);
    text(this.said, saved ? "Revoked." : "Revoked, until the relay is restarted: its state cannot be saved now.");
    if (part("share-link").value.includes(id)) part("share-made").hidden = true;
    await this.#list();
  }

  async #copy(field) {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      text(this.said, "Copied.");
    } catch {
      // Not allowed, or the page was loaded over plain HTTP: the selected text can be copied by hand.
      text(this.said, "Press Ctrl+C to copy.");
    }
  }
}

function framed(url, name) {
  const quoted = (value) => value.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
  return `<iframe src="${quoted(url)}" title="${quoted(name)}" width="640" height="360" style="border: 0" `
    + 'allow="autoplay; fullscreen; picture-in-picture"></iframe>';
}

function date(unix) {
  return new Date(unix * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function described({ name, camera, made_at: made, expires_at: end, seen_at: seen, revoked_at: revoked, views }) {
  const state = revoked ? "revoked" : views ? `${views} watching` : seen ? `last used ${date(seen)}` : "not used yet";
  return [`${name || camera}, until ${date(end)}`, state, made ? "" : "made by an earlier release"].filter(Boolean).join(" · ");
}

function row(link, words) {
  const line = document.createElement("li");
  line.append(Object.assign(document.createElement("span"), { textContent: words }));
  if (!link.revoked_at) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Revoke" });
    Object.assign(button.dataset, { revoke: link.id, words: `${link.name || link.camera}, ${counted(link.views, "viewer")}` });
    button.setAttribute("aria-label", `Revoke the link to ${words}`);
    line.append(button);
  }
  return line;
}
