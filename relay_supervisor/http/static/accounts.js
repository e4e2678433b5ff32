// All accounts that are spread over several supervisors: who commands each, and how its cameras are. Pictures are on each
// account's own page.

import { call } from "./api.js";
import { word } from "./format.js";
import { text } from "./tile.js";

const EVERY = 2000;

const part = (name) => document.getElementById(name);
const sections = new Map(); // account → its section

function section(account) {
  const found = sections.get(account.name);
  if (found) return found;
  const made = part("account").content.firstElementChild.cloneNode(true);
  const link = made.querySelector("a");
  text(link, account.name);
  link.href = `.${account.path}/`;
  sections.set(account.name, made);
  part("accounts").append(made);
  return made;
}

function row(account, camera) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `.${account.path}/watch/${camera.id}`;
  text(link, camera.name);
  const why = camera.state === "live" ? "" : camera.verdict?.cause || camera.reason;
  item.dataset.state = camera.state;
  item.append(link, ` ${word(camera)}${why ? `: ${why}` : ""}`);
  return item;
}

function show(status) {
  text(part("live"), `${status.totals.connected} of ${status.totals.cameras}`);
  text(part("count"), String(status.accounts.length));
  text(part("viewers"), String(status.totals.viewers));
  text(part("seat"), status.seat.replica);
  for (const account of status.accounts) {
    const shown = section(account);
    const held = account.holder ? `commanded by ${account.holder}` : "";
    text(shown.querySelector("p"), account.problem || `${account.live} of ${account.cameras} live, ${held}`);
    shown.dataset.problem = account.problem ? "yes" : "no";
    const cameras = status.cameras.filter((camera) => camera.account === account.name);
    const rows = cameras.map((camera) => row(account, camera));
    const list = shown.querySelector("ul");
    // Whoever goes through it by keyboard stays where they are while nothing changes.
    if (rows.map((item) => item.outerHTML).join("") !== list.innerHTML) list.replaceChildren(...rows);
  }
}

async function look() {
  try {
    show(await call("GET", "/api/stats"));
    part("link").dataset.state = "open";
    text(part("link"), "Connected");
  } catch (error) {
    part("link").dataset.state = "lost";
    text(part("link"), error.status ? error.message : "The relay does not answer");
  }
  setTimeout(look, EVERY);
}

look();
