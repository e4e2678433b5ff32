// Firefox over WebDriver BiDi. Reads one command a line, `{"goto": URL}` or `{"evaluate": EXPRESSION}`, and writes one
// answer a line, `{"value"}` or `{"error"}`. Its executable is the program's argument; ends with its standard input.
import { createInterface } from "node:readline";
import puppeteer from "puppeteer-core";

const browser = await puppeteer.launch({
  browser: "firefox",
  executablePath: process.argv[2],
  headless: true,
  timeout: 60_000,
  extraPrefsFirefox: {
    "media.peerconnection.ice.loopback": true,
    "media.peerconnection.ice.obfuscate_host_addresses": false,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    // It reaches for nothing by itself.
    "media.gmp-manager.url": "",
    "network.captive-portal-service.enabled": false,
    "network.connectivity-service.enabled": false,
    "services.settings.server": "",
  },
});
const page = await browser.newPage();
process.stdout.write(`${JSON.stringify({ value: await browser.version() })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const { goto, evaluate } = JSON.parse(line);
  try {
    const value = goto ? void (await page.goto(goto)) : await page.evaluate(evaluate);
    process.stdout.write(`${JSON.stringify({ value: value ?? null })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: String(error) })}\n`);
  }
}
await browser.close();
process.exit(0);
