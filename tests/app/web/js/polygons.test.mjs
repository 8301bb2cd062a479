// The polygons of a region of interest.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Polygons } from "./static/polygons.js";

function drawn(...corners) {
  const made = new Polygons(100, 50);
  for (const [x, y] of corners) made.add(x, y);
  return made;
}

test("three corners with an area can be closed, and are a share of the picture", () => {
  const made = drawn([0, 0], [50, 0]);
  assert.equal(made.finish(), false);
  made.add(50, 50);
  assert.equal(made.finish(), true);
  assert.deepEqual(made.body(), { image: { width: 100, height: 50 }, polygons: [[[0, 0], [50, 0], [50, 50]]] });
  assert.equal(made.share(), 0.25);
});

test("corners on one line cannot be closed", () => assert.equal(drawn([0, 0], [10, 10], [20, 20]).canFinish(), false));

test("corners stay inside the picture and on tenths of a pixel", () => {
  assert.deepEqual(drawn([-5, 70], [33.333, 1]).open, [[0, 50], [33.3, 1]]);
});

test("undo takes back a corner, then opens the last polygon", () => {
  const made = drawn([0, 0], [50, 0], [50, 50]);
  made.finish();
  made.add(1, 1);
  made.undo();
  assert.deepEqual([made.done.length, made.open.length], [1, 0]);
  made.undo();
  assert.deepEqual([made.done.length, made.open.length], [0, 3]);
});

test("on a picture of another size everything is stretched, also what is not closed", () => {
  const made = drawn([0, 0], [50, 0], [50, 50]);
  made.finish();
  made.add(10, 10);
  const larger = made.resized(200, 200);
  assert.deepEqual(larger.done, [[[0, 0], [100, 0], [100, 200]]]);
  assert.deepEqual(larger.open, [[20, 40]]);
});

test("the nearest corner within reach is found and moved", () => {
  const made = drawn([0, 0], [50, 0], [50, 50]);
  made.finish();
  made.add(10, 10);
  assert.equal(made.near(30, 30, 5), null);
  const { polygon, corner } = made.near(49, 1, 5);
  assert.deepEqual([polygon, corner], [0, 1]);
  assert.equal(made.near(11, 10, 5).polygon, -1);
  made.move({ polygon, corner }, 60, -3);
  assert.deepEqual(made.at({ polygon, corner }), [60, 0]);
  assert.equal(made.corners().length, 4);
});

test("the whole picture is one polygon; cleared there is none", () => {
  const made = drawn([1, 1]);
  made.whole();
  assert.equal(made.share(), 1);
  made.clear();
  assert.equal(made.empty, true);
});

test("there are at most 64 polygons of 500 corners", () => {
  const made = new Polygons(100, 50);
  for (let i = 0; i < 500; i += 1) assert.equal(made.add(i % 100, i % 7), true);
  assert.equal(made.add(0, 0), false);
  made.open = [];
  for (let i = 0; i < 64; i += 1) made.done.push([[0, 0], [1, 0], [1, 1]]);
  assert.equal(made.add(0, 0), false);
});
