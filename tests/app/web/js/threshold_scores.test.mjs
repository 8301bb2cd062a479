// The histogram of scores, and which moves of the threshold are worth a question.
import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.mjs";
import { count, describeMove, describeTest, largeMove, range } from "./static/threshold_scores.js";

const NONE = { calibration: [], inspections: [], defects: [], test_good: [], test_defects: [] };

test("every score has a bin, and those far above the threshold share the last one", () => {
  const scores = { ...NONE, calibration: [1, 2, 3], test_defects: [1000] };
  const scale = range(scores, [3, 4]);
  assert.equal(scale[0], 1);
  assert.ok(scale[1] < 12);
  const bins = count([1, 2, 3, 1000], scale);
  assert.equal(bins.reduce((sum, n) => sum + n), 4);
  assert.equal(bins.at(-1), 1);
  assert.equal(bins[0], 1);
});

test("equal scores have an axis, too", () => {
  assert.deepEqual(range({ ...NONE, calibration: [2, 2] }, [2]), [1, 3]);
});

test("a move is large by its rate or by the decisions that it changes", () => {
  const outlook = { window: { inspections: 100 } };
  assert.equal(largeMove(outlook, { target_fpr: 0.02, changed: 5 }, 0.01), false);
  assert.equal(largeMove(outlook, { target_fpr: 0.02, changed: 6 }, 0.01), true);
  assert.equal(largeMove(outlook, { target_fpr: 0.04, changed: 0 }, 0.01), true);
  assert.equal(largeMove(outlook, { target_fpr: 0.01, changed: 0 }, 0.04), true);
});

test("a large move says what it changes", () => {
  const scores = { ...NONE, test_good: [1, 5], test_defects: [4, 6] };
  const rate = { value: 0.1, low: 0.05, high: 0.2 };
  const one = { target_fpr: 0.1, changed: 7, overkill: rate, escape: { value: null }, threshold: { reject: 4 } };
  const text = describeMove({ window: { inspections: 50 }, scores }, one, 0.01, ["7 from Pass to Reject"]);
  assert.match(text, /from 1% to 10%.*latest 50 inspections, 7 would.*\(7 from Pass to Reject\)/);
  assert.match(text, /Good parts rejected: 10% \(between 5% and 20%\)/);
  assert.ok(!text.includes("Defective parts passed"));
  assert.match(describeTest(scores, 4), /1 of 2 defects and 1 of 2 good images/);
  assert.equal(describeTest(NONE, 4), "");
});
