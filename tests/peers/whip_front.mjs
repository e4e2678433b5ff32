// The HTTP side of a WHIP server: `POST /whip/NAME` publishes, `DELETE` of its Location ends it, `GET /received` counts
// the newest session's packets. Its port is the program's argument; it ends with its standard input.
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

// `open(offer, counters)` resolves to { answer, close }; it hands each packet to `counters.video` or `counters.audio`.
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
      let offer = "";
      for await (const chunk of request) offer += chunk;
      counters = { video: new Counter(), audio: new Counter() };
      const session = await open(offer, counters);
      const location = `/sessions/${crypto.randomUUID()}`;
      sessions.set(location, session);
      response.writeHead(201, { "Content-Type": "application/sdp", Location: location }).end(session.answer);
    } catch (error) {
      process.stderr.write(`${error.stack}\n`);
      response.writeHead(422).end(String(error));
    }
  });
  server.listen(Number(process.argv[2]), "127.0.0.1");
  process.stdin.resume().on("end", () => process.exit(0));
}
