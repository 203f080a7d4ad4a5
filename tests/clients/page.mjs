// The page in headless Chromium: `node page.mjs URL FOLDER`. Screenshots go to FOLDER.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(process.env.PITH_CLIENTS + "/")("playwright-core");
const [url, folder] = process.argv.slice(2);
const args = process.getuid() === 0 ? ["--no-sandbox"] : []; // the sandbox does not run for root
const browser = await chromium.launch({ executablePath: process.env.PITH_CHROMIUM, args });

async function open(options) {
  const page = await browser.newPage(options);
  page.on("pageerror", (error) => { throw error; });
  page.on("console", (message) => { // a refusal is told to people, and by the browser here
    if (message.type() === "error" && !message.text().includes("status of 400")) throw new Error(message.text());
  });
  page.on("request", (request) => assert(request.url().startsWith(url) || request.url().startsWith("data:"), request.url()));
  // The model of the tests would end its answers where it likes.
  await page.route("**/v1/chat/completions", (route) =>
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), seed: 1, ignore_eos: true }) }));
  await page.goto(url);
  return page;
}

const number = (page, id) => page.textContent("#" + id).then(Number);
const ended = (page) => page.waitForSelector("#stop[disabled]", { timeout: 120_000 });

// With the keyboard alone: a question, its policy, and Enter; rows fall at compressions.
const page = await open({ viewport: { width: 1280, height: 900 } });
await page.waitForFunction(() => document.querySelector("#model").textContent.includes("default policy"));
await page.fill("#most", "400");
await page.fill("#policy", "rpc:p=64,r=8,c=4");
await page.focus("#question");
await page.keyboard.type("Why?");
await page.keyboard.press("Enter");
await page.waitForFunction(() => Number(document.querySelector("#n-compressions").textContent) > 0);
await page.screenshot({ path: join(folder, "thinking.png") });
await ended(page);
assert.equal(await number(page, "n-tokens"), 400);
assert.equal(await number(page, "n-compressions"), 6);
assert((await number(page, "n-rows")) < (await number(page, "n-full")) / 2);
const heights = await page.$eval("#plot-rows", (line) => [...line.points].map((p) => p.y));
assert(heights.some((y, i) => i > 0 && y > heights[i - 1] + 5)); // down, in a picture, is up in numbers
assert.match(await page.getAttribute("#strip", "aria-label"), /^\d+ of 400 generated tokens are kept/);
assert((await page.$$("article .kept")).length > 0);
assert.match(await page.textContent("article:last-child .about"), /^400 tokens, rpc:p=64,r=8,c=4.* 6 compressions$/);
await page.click("article summary");
await page.screenshot({ path: join(folder, "compressed.png") });

// Another policy for the next message of the same conversation.
await page.fill("#policy", "full");
await page.fill("#question", "And why that?");
await page.click("#send");
await ended(page);
assert.equal(await page.locator("article").count(), 4);
assert.equal(await number(page, "n-rows"), await number(page, "n-full"));

// An answer can be stopped: one so long that it cannot have ended before the key is pressed.
await page.fill("#most", "1000000");
await page.fill("#policy", "window:budget=64");
await page.fill("#question", "Once more?");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelector("#status").textContent.includes("answering"));
await page.keyboard.press("Escape");
await ended(page);
assert.equal(await page.textContent("#status"), "Stopped.");

// A mistake is told, and the question may be asked again.
await page.click("#clear");
await page.fill("#policy", "best");
await page.fill("#question", "Why?");
await page.click("#send");
await ended(page);
assert.match(await page.textContent("#status"), /unknown policy/);

// Every control has a name for those who do not see it; the dark page is another one.
for (const control of await page.$$("textarea, input, select, button")) {
  const named = await control.evaluate((e) => e.labels?.length > 0 || e.textContent.trim().length > 0);
  assert(named, await control.evaluate((e) => e.outerHTML));
}
const dark = await open({ colorScheme: "dark", viewport: { width: 420, height: 900 } });
const colour = (p) => p.evaluate(() => getComputedStyle(document.body).backgroundColor);
assert.notEqual(await colour(dark), await colour(page));
assert(await dark.evaluate(() => document.documentElement.scrollWidth <= innerWidth)); // fits a narrow screen
await dark.screenshot({ path: join(folder, "dark.png"), fullPage: true });
await browser.close();
