// A browser that does what lines on standard input say, each a JSON array of a verb and its words, and answers each with a line:
// {"ok": …} or {"error": …}. What a page says on its console, and what it throws, is kept for `console`.
//
// Must not know what is tested.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [, , libraries, folder] = process.argv;
const require = createRequire(join(libraries, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: process.env.QBOX_TEST_CHROMIUM ?? "/usr/bin/chromium",
  // As root there is no sandbox; and nothing but the page is to be asked for.
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let page = null;
let said = [];

const verbs = {
  /** A new page of that size and colour scheme, at that address. */
  async open(url, width, height, scheme) {
    await page?.context().close();
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    page = await context.newPage();
    page.setDefaultTimeout(60000);
    said = [];
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) said.push(`${message.type()}: ${message.text()}`); });
    page.on("pageerror", (error) => said.push(`thrown: ${error.message}`));
    page.on("dialog", (dialog) => { said.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    let failed = [];
    page.on("requestfailed", (request) => failed.push(request.failure()?.errorText ?? ""));
    for (let left = 5; ; left--) {
      failed = [];
      said = [];
      const gone = await page.goto(url).then(() => null, (error) => error);
      // Its namespace is new: while the interfaces there come up, the browser drops what it was loading, and doesn't ask again.
      const changed = [...failed, gone?.message ?? ""].some((text) => text.includes("ERR_NETWORK_CHANGED"));
      if (changed && left) {
        console.error(`${url} is loaded again: the network has changed`);
        // To the page that it shows already, with a fragment, a browser would only scroll.
        await page.goto("about:blank");
        continue;
      }
      if (gone) throw gone;
      return;
    }
  },
  /** Waits until that text is seen in what the selector names. */
  async see(selector, text) { await page.locator(selector).filter({ hasText: text }).first().waitFor({ state: "visible" }); },
  /** Waits until nothing of it is seen. */
  async gone(selector) { await page.locator(selector).first().waitFor({ state: "hidden" }); },
  async click(selector) { await page.locator(selector).first().click(); },
  async fill(selector, text) { await page.locator(selector).first().fill(text); },
  async press(key) { await page.keyboard.press(key); },
  async text(selector) { return page.locator(selector).first().innerText(); },
  async count(selector) { return page.locator(selector).count(); },
  async evaluate(script) { return page.evaluate(script); },
  /** The whole page, unless it is one that nobody would print. */
  async shot(name) {
    const fullPage = await page.evaluate(() => document.documentElement.scrollHeight < 6000);
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage });
  },
  /** What axe calls serious or critical, each with the places. */
  async barriers() {
    // By the debugger's way: the page's own policy would rightly refuse it.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run(document));
    return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`);
  },
  async console() { return said; },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...words] = JSON.parse(line);
  try {
    console.log(JSON.stringify({ ok: (await verbs[verb](...words)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: `${verb} ${words.join(" ")}: ${error.message}` }));
  }
}
await browser.close();
