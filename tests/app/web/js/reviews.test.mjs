// Saving a review: answers that are lost, and somebody else who was faster.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Element, byId, requests, willAnswer } from "./page.mjs";
import { Reviews } from "./static/reviews.js";

const LOST = null;
const list = byId("reviews");

function review(revision, verdict, fields = {}) {
  return { revision, verdict, key_id: "mine", created: "2026-11-25T01:15:00Z", ...fields };
}

function reviews(revision) {
  list.children = [];
  Element.prototype.querySelectorAll = function () {
    return this.children.filter((one) => one.dataset?.revision !== undefined);
  };
  return new Reviews({ id: "i", revision });
}

test("a review says which one it follows", async () => {
  const one = reviews(2);
  willAnswer([201, review(3, "good")]);
  assert.equal((await one.save({ verdict: "good" })).revision, 3);
  assert.deepEqual(requests[0].body, { verdict: "good", expected_revision: 2 });
  assert.deepEqual(list.children.map((item) => item.dataset.revision), [3]);
});

test("a review whose answer was lost is known as one's own", async () => {
  const one = reviews(0);
  willAnswer(LOST, [200, { reviews: [review(1, "good")] }]);
  assert.equal((await one.save({ verdict: "good" })).revision, 1);
  assert.equal(one.revision, 1);
});

test("one that was lost is seen at the next press, which says otherwise", async () => {
  const one = reviews(0);
  willAnswer(LOST, LOST);
  await assert.rejects(one.save({ verdict: "good" }), { status: 0 });
  willAnswer(
    [409, { type: "conflict", detail: "" }],
    [200, { review: review(1, "good") }],
    [200, { reviews: [review(1, "good")] }],
    [201, review(2, "defect")],
  );
  assert.equal((await one.save({ verdict: "defect" })).verdict, "defect");
  assert.deepEqual(requests.at(-1).body, { verdict: "defect", expected_revision: 1 });
});

test("what somebody else has said meanwhile is told and not overwritten", async () => {
  const one = reviews(0);
  willAnswer([409, { type: "conflict", detail: "" }], [200, { review: review(1, "defect", { key_id: "theirs" }) }]);
  await assert.rejects(one.save({ verdict: "good" }), (error) => error.now.verdict === "defect");
  assert.equal(one.revision, 0);
});

test("the same verdict of another key is not taken for one's own", async () => {
  const one = reviews(0);
  const theirs = review(1, "good", { key_id: "theirs" });
  willAnswer([409, { type: "conflict", detail: "" }], [200, { review: theirs }], [200, { reviews: [theirs] }]);
  await assert.rejects(one.save({ verdict: "good" }), (error) => error.now.revision === 1);
});
