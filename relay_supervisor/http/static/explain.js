// What a word on the page means, on hover, tap or focus: every element with a data-term.

const TERMS = {
  live: "Cameras whose picture arrives at the relay and is passed on to Cloudflare.",
  rate: "What all cameras together send to the relay.",
  queue: "Commands that wait for their turn at Google, which allows only a few a minute for all cameras together. "
    + "0 is usual; after a fault some wait, and cameras come back one after the other.",
  watching: "Open views of the relay's cameras: this page is one, each other page and each shared link that is open another.",
  month: "What Cloudflare sends to this page, and what a whole month of it would cost. The first 1,000 GB a month are free, "
    + "then a GB costs $0.05. Other pages and viewers come on top. Only pictures in sight are sent, and those that come direct from the relay cost nothing.",
  commands: "Commands sent to Google in the last minute, of those it allows. The line below shows when: now is at its right.",
  lease: "How long Google still lets the relay read this camera's stream. The relay extends it in time; "
    + "should it run out, a new stream is asked for. Orange: under half a minute is left.",
};

// A button with the word `name` that tells what `term` means.
export function explained(term, name) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "term", textContent: name });
  button.dataset.term = term;
  return button;
}

let anchor = null;
let hovered = false;

const bubble = Object.assign(document.createElement("div"), { id: "term", className: "term-said", popover: "auto" });
bubble.setAttribute("role", "tooltip");
bubble.addEventListener("toggle", (event) => event.newState === "closed" && clear());

function clear() {
  anchor?.removeAttribute("aria-describedby");
  anchor = null;
}

function show(button) {
  if (anchor === button && bubble.matches(":popover-open")) return;
  hide();
  // A dialog that is open makes everything outside of it inert.
  (button.closest("dialog") ?? document.body).append(bubble);
  bubble.textContent = TERMS[button.dataset.term];
  bubble.showPopover?.();
  anchor = button;
  button.setAttribute("aria-describedby", bubble.id);
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = bubble;
  const below = at.bottom + 6 + height < innerHeight;
  bubble.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  bubble.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - height - 6)}px`;
}

function hide() {
  if (bubble.isConnected && bubble.matches(":popover-open")) bubble.hidePopover();
  clear();
}

const term = (event) => (event.target instanceof Element ? event.target.closest("[data-term]") : null);

document.addEventListener("click", (event) => {
  hovered = false; // it stays until something else is clicked
  if (term(event)) show(term(event));
});
document.addEventListener("pointerover", (event) => {
  if (event.pointerType !== "mouse" || !term(event)) return;
  show(term(event));
  hovered = true;
});
document.addEventListener("pointerout", (event) => {
  if (hovered && term(event) && !term(event).contains(event.relatedTarget)) hide();
});
document.addEventListener("focusin", (event) => term(event)?.matches(":focus-visible") && show(term(event)));
document.addEventListener("focusout", (event) => term(event) && hide());
addEventListener("scroll", hide, { capture: true, passive: true });
