// Serves a page with partytracks, and its proxy in front of an SFU. Arguments: the SFU's API, app id, app secret.
// Writes the port as one line; ends with its stdin.
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { routePartyTracksRequest } from "partytracks/server";

const [api, appId, token] = process.argv.slice(2);
const here = fileURLToPath(new URL(".", import.meta.url));
// The client is written for a bundler: it imports from inside rxjs.
const bundled = await build({
  stdin: { contents: 'export { PartyTracks } from "partytracks/client"; export { of } from "rxjs";', resolveDir: here },
  bundle: true, write: false, format: "iife", globalName: "party", logLevel: "error",
});
const PAGE = `<!doctype html><title>partytracks</title><script src="/client.js"></script>
<canvas id="picture" width="320" height="240"></canvas><video id="video" autoplay muted></video>`;

// routePartyTracksRequest hands the body on as a stream, which Node's fetch takes only with `duplex`.
const plain = globalThis.fetch;
globalThis.fetch = (input, init) => plain(input, init?.body ? { ...init, duplex: "half" } : init);

const server = createServer(async (incoming, outgoing) => {
  try {
    if (incoming.url === "/") return void outgoing.setHeader("Content-Type", "text/html").end(PAGE);
    if (incoming.url === "/client.js") {
      return void outgoing.setHeader("Content-Type", "text/javascript").end(bundled.outputFiles[0].text);
    }
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
      method: incoming.method,
      headers: incoming.headers,
      body: chunks.length ? Buffer.concat(chunks) : undefined,
    });
    const answer = await routePartyTracksRequest({
      appId, token, request, realtimeApiBaseUrl: api, lockSessionToInitiator: false,
    });
    outgoing.writeHead(answer.status, { "Content-Type": "application/json" }).end(await answer.text());
  } catch (error) {
    process.stderr.write(`${error.stack}\n`);
    outgoing.writeHead(500).end(String(error));
  }
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${server.address().port}\n`));
process.stdin.resume().on("end", () => process.exit(0));
