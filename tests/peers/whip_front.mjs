// The HTTP side of a WHIP server: `POST /whip/NAME` publishes, `PATCH` of its Location restarts ICE, `DELETE` ends it,
// `GET /received` counts the newest session's packets. Its port is the program's argument; it ends with its standard input.
import { createServer } from "node:http";

// Counts packets of one kind by sequence number: those that came, and those that are missing between them.
export class Counter {
  #first;
  #highest;
  packets = 0;

  take(packet) {
    const number = packet.readUInt16BE(2);
    if (this.#first === undefined) this.#first = this.#highest = number;
    const step = ((number - this.#highest + 0x8000) & 0xffff) - 0x8000;
    if (step > 0) this.#highest += step;
    this.packets += 1;
  }

  get counted() {
    const lost = this.#first === undefined ? 0 : (this.#highest & 0xffffff) - this.#first + 1 - this.packets;
    return { packets: this.packets, lost };
  }
}

// Answers a PATCH (RFC 9725 §4.3).
async function patch(session, request, response) {
  let fragment = "";
  for await (const chunk of request) fragment += chunk;
  if (!session) return response.writeHead(404).end();
  if (!session.restart) return response.writeHead(501).end();
  const match = request.headers["if-match"];
  if (match !== "*" && match !== session.tag) return response.writeHead(match ? 412 : 428).end();
  if (match !== "*") return response.writeHead(422).end();
  const answer = await session.restart(fragment);
  session.tag = `"${crypto.randomUUID()}"`;
  response.writeHead(200, { "Content-Type": "application/trickle-ice-sdpfrag", ETag: session.tag }).end(answer);
}

// `open(offer, counters)` resolves to { answer, close, restart }; it hands each packet to `counters.video` or `counters.audio`.
export function serve(open) {
  const sessions = new Map();
  let counters = { video: new Counter(), audio: new Counter() };
  const server = createServer(async (request, response) => {
    if (request.method === "GET") {
      return response.end(JSON.stringify({ video: counters.video.counted, audio: counters.audio.counted }));
    }
    if (request.method === "DELETE") {
      const session = sessions.get(request.url);
      sessions.delete(request.url);
      session?.close();
      return response.writeHead(session ? 200 : 404).end();
    }
    try {
      if (request.method === "PATCH") return await patch(sessions.get(request.url), request, response);
      let offer = "";
      for await (const chunk of request) offer += chunk;
      counters = { video: new Counter(), audio: new Counter() };
      const session = { ...(await open(offer, counters)), tag: `"${crypto.randomUUID()}"` };
      const location = `/sessions/${crypto.randomUUID()}`;
      sessions.set(location, session);
      const headers = { "Content-Type": "application/sdp", Location: location, ETag: session.tag };
      response.writeHead(201, headers).end(session.answer);
    } catch (error) {
      process.stderr.write(`${error.stack}\n`);
      response.writeHead(422).end(String(error));
    }
  });
  server.listen(Number(process.argv[2]), "127.0.0.1");
  process.stdin.resume().on("end", () => process.exit(0));
}
