// All accounts that are spread over several supervisors: who commands each, what of its commands at Google is used up, what
// is wrong with it, and how its cameras are. Pictures are on each account's own page.

import { call } from "./api.js";
import { Banner } from "./banner.js";
import { word } from "./format.js";
import { line } from "./reasons.js";
import { text } from "./tile.js";

const EVERY = 2000;

const part = (name) => document.getElementById(name);
const sections = new Map(); // account → its section, and what shows its problems

function section(account) {
  const found = sections.get(account.name);
  if (found) return found;
  const made = part("account").content.firstElementChild.cloneNode(true);
  const link = made.querySelector("a");
  text(link, account.name);
  link.href = `.${account.path}/`;
  const said = made.querySelector("[data-part=problems]");
  const entry = { element: made, banner: new Banner(said, document.createElement("p")) };
  sections.set(account.name, entry);
  part("accounts").append(made);
  return entry;
}

function commands({ used, limit, depth, hold }) {
  const held = hold > 0 ? `, held for ${Math.ceil(hold)} s` : "";
  return `${used} of ${limit} commands in the last minute, ${depth} waiting${held}`;
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
    const { element: shown, banner } = section(account);
    const held = account.holder ? `commanded by ${account.holder}` : "";
    const words = account.problem || `${account.live} of ${account.cameras} live, ${held}`;
    text(shown.querySelector("[data-part=held]"), words);
    const budgets = account.problem ? [] : status.budgets.filter((budget) => budget.name === account.name);
    text(shown.querySelector("[data-part=commands]"), budgets.map(commands).join("; "));
    const problems = status.problems.filter((problem) => problem.account === account.name);
    banner.show(problems.map((problem) => line(problem, status.at, false)));
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
