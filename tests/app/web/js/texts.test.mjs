// Words, numbers and times as the reader writes them; the band that says that the server is away.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { byId, words } from "./page.mjs";
import { showOffline } from "./static/base.js";
import { toCard } from "./static/cards.js";
import { number, percent, t } from "./static/texts.js";

test("values are put into the words", () => {
  assert.equal(t("script.failed", { status: 418 }), words["script.failed"].replace("{status}", "418"));
  assert.equal(number(1234.5, 2), "1,234.50");
});

test("shares are told as the server tells them", () => {
  const shares = JSON.parse(readFileSync(new URL("./shares.json", import.meta.url)));
  for (const [share, said] of shares) assert.equal(percent(share), said);
});

test("an inspection is made alike, wherever it comes from", () => {
  const fed = { inspection_id: "0193a6b2-0000-7d4f-8a53-5d1d3b7a8c11", category: "tiny", decision: "PASS", score: 1 };
  assert.equal(toCard(fed).created, new Date(0x0193a6b20000).toISOString()); // the first 48 bits of the id
  const answered = { ...fed, category: undefined, model: { category: "tiny" }, review: { verdict: "good", revision: 2 } };
  const { category, verdict, revision, pictured } = toCard(answered);
  assert.deepEqual({ category, verdict, revision, pictured }, { category: "tiny", verdict: "good", revision: 2, pictured: true });
});

test("the band stays until all who found the server away have reached it", () => {
  showOffline("stream", true, "away");
  showOffline("network", true, "no cable");
  assert.equal(byId("offline").textContent, "no cable");
  showOffline("network", false);
  assert.deepEqual([byId("offline").hidden, byId("offline").textContent], [false, "away"]);
  showOffline("stream", false);
  assert.equal(byId("offline").hidden, true);
});
