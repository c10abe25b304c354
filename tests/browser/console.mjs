// The console in a headless Chromium, beside a node that serves devices.
//
//   node console.mjs URL DEVICE JOURNAL SCREENSHOTS
//
// URL holds a one-time token. Sees a reading on the page that the device published after the page
// was open, finds it again after a reload, sends a command and follows it until it is done, and
// takes pictures. Says what it saw in one line of JSON; exits 1 where something does not come.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, device, journal, screenshots] = process.argv.slice(2);
const PATIENCE_MS = 60000;
// Readings in the pictures, so that there is something to see.
const ENOUGH = 60;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  console.log(JSON.stringify(await visit()));
} finally {
  await browser.close();
}

async function visit() {
  const page = await browser.newPage({ viewport: { width: 1360, height: 900 }, colorScheme: "light" });
  page.setDefaultTimeout(PATIENCE_MS);
  const faults = [];
  const foreign = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("request", (request) => new URL(request.url()).host === new URL(url).host || foreign.push(request.url()));

  const [address, token] = url.split("#");
  await page.goto(`${address}?device=${device}#${token}`);
  await live(page);
  await page.locator(`[data-testid=device][data-device="${device}"][data-online=true]`).waitFor();
  const held = Math.max(0, ...published().map(({ n }) => n));

  const reading = await page.waitForFunction((held) => {
    const row = [...document.querySelectorAll("[data-testid=reading]")].find(({ dataset }) => Number(dataset.n) > held);
    return row && { n: Number(row.dataset.n), offset: row.dataset.offset, value: row.querySelector("[data-testid=reading-value]").textContent };
  }, held);
  const seen = await reading.jsonValue();
  if (!published().some(({ n }) => n === seen.n)) throw new Error(`${seen.n} is on the page and not in the journal`);

  await page.reload();
  await live(page);
  const again = page.locator(`[data-testid=reading][data-offset="${seen.offset}"]`);
  await again.waitFor();
  const value = await again.locator("[data-testid=reading-value]").textContent();
  if (value !== seen.value) throw new Error(`${seen.n} was ${seen.value} and is ${value} after a reload`);

  await command(page, "identify", "", "done");
  await command(page, "dance", "twice", "failed");

  await page.locator("[data-window='60']").click();
  // The chart is drawn in the same breath as the rows: one more row, and it shows its minute.
  const enough = Math.max(ENOUGH, (await newest(page)) + 1);
  await page.waitForFunction((enough) => [...document.querySelectorAll("[data-testid=reading]")].some(({ dataset }) => Number(dataset.n) >= enough), enough);
  await picture(page, "console-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.locator("html[data-theme=dark]").waitFor();
  await picture(page, "console-dark");
  await page.setViewportSize({ width: 390, height: 844 });
  await picture(page, "console-dark-narrow");
  await page.emulateMedia({ colorScheme: "light" });
  await page.locator("html[data-theme=light]").waitFor();
  await picture(page, "console-light-narrow");

  if (faults.length) throw new Error(`the page complains: ${faults.join("; ")}`);
  if (foreign.length) throw new Error(`the page asked somebody else: ${foreign.join(", ")}`);
  return { held, ...seen };
}

// What the device says it has published. Its last line may be half written.
function published() {
  const lines = readFileSync(journal, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line));
}

// The highest number on the page.
async function newest(page) {
  return page.getByTestId("reading").evaluateAll((rows) => Math.max(0, ...rows.map(({ dataset }) => Number(dataset.n ?? 0))));
}

async function live(page) {
  await page.locator("[data-testid=connection][data-state=live]").waitFor();
}

async function command(page, name, body, state) {
  await page.getByTestId("command-name").fill(name);
  await page.getByTestId("command-body").fill(body);
  await page.locator("[data-testid=command-send]:enabled").click();
  await page.locator(`[data-testid=command][data-name="${name}"][data-state="${state}"]`).waitFor();
}

async function picture(page, name) {
  // The chart is drawn at most once in a frame: after two it has the size and the colours of now.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
}
