// Calls to the relay. A failure is an ApiError with the relay's own words.

export class ApiError extends Error {
  constructor(status, { code = "unknown", message = `The relay answered ${status}`, hint = "" } = {}) {
    super(hint ? `${message}. ${hint}` : message);
    this.status = status;
    this.code = code;
  }
}

export async function call(method, path, body) {
  const options = { method, credentials: "same-origin", signal: AbortSignal.timeout(30000) };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const reply = await fetch(path, options);
  const said = await reply.json().catch(() => ({}));
  // The session has ended: the page itself shows how to sign in.
  if (reply.status === 401) location.reload();
  if (!reply.ok) throw new ApiError(reply.status, said.error);
  return said;
}

// Ends a view while the page goes away, when ordinary requests are cut off.
export function leave(view) {
  fetch(`/api/view/${view}`, { method: "DELETE", keepalive: true, credentials: "same-origin" }).catch(() => {});
}
