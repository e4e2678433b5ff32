// Calls to the relay. A failure is an ApiError with the relay's message.

export class ApiError extends Error {
  constructor(status, { code = "unknown", message = `The relay answered ${status}`, hint = "" } = {}) {
    super(hint ? `${message}. ${hint}` : message);
    this.status = status;
    this.code = code;
  }
}

// The relay may be served under any path: everything is addressed relative to this file.
const ROOT = new URL("../", import.meta.url);

// The URL of a path of the relay: "/api/cameras".
export function at(path) {
  return new URL(`.${path}`, ROOT).href;
}

let authorization = {}; // of a page opened through a link

// Send a link's credentials, CAMERA.EXPIRES.SIGNATURE, with every call.
export function useLink(link) {
  authorization = { Authorization: `Link ${link}` };
}

// The headers that show who we are.
export function credentials() {
  return { ...authorization };
}

export async function call(method, path, body) {
  const reply = await send(method, path, body);
  return reply.json().catch(() => ({}));
}

// A picture, as a URL that can be shown and saved.
export async function image(path) {
  const blob = await (await send("GET", path)).blob();
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}

async function send(method, path, body) {
  const options = { method, credentials: "same-origin", signal: AbortSignal.timeout(30000), headers: { ...authorization } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const reply = await fetch(at(path), options);
  if (reply.ok) return reply;
  // The session has expired: reloading the dashboard shows the sign-in page.
  if (reply.status === 401 && location.pathname === ROOT.pathname) location.reload();
  const said = await reply.json().catch(() => ({}));
  throw new ApiError(reply.status, said.error);
}

// Ends a view while the page is unloading, when ordinary requests are cut off.
export function leave(view) {
  fetch(at(`/api/view/${view}`), { method: "DELETE", keepalive: true, credentials: "same-origin", headers: authorization }).catch(() => {});
}
