// Histogram of scores with the threshold: calibration, latest inspections, defects, test images.
import { number, percent, t } from "./texts.js";

const SPACE = "http://www.w3.org/2000/svg";
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [150, 12, 24, 22, 120];
const BINS = 50;
const GROUPS = ["inspections", "calibration", "test_good", "defects"];

function groups(scores) {
  return { ...scores, defects: [...scores.defects, ...scores.test_defects] };
}

// The axis ends where the groups do, but not far beyond the thresholds: higher scores are in the last bin.
export function range(scores, limits) {
  const all = GROUPS.flatMap((name) => groups(scores)[name]);
  const low = Math.min(...all, ...limits);
  const top = Math.max(...limits);
  const high = Math.min(Math.max(...all, top), top + 2 * (top - low));
  return high > low ? [low, high + (high - low) / BINS] : [low - 1, low + 1];
}

export function count(values, [low, high]) {
  const bins = new Array(BINS).fill(0);
  for (const value of values) bins[Math.min(Math.floor(((value - low) / (high - low)) * BINS), BINS - 1)] += 1;
  return bins;
}

function add(svg, name, attributes, text) {
  const one = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  svg.append(one);
}

// Each group has its own height: their sizes differ a lot.
export function drawScores(svg, legend, outlook) {
  const width = Math.max(svg.getBoundingClientRect().width, 240);
  const scale = range(outlook.scores, outlook.positions.map((one) => one.threshold.reject));
  const found = groups(outlook.scores);
  svg.replaceChildren(svg.querySelector("title"));
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.dataset.scale = JSON.stringify(scale);
  const step = (width - LEFT - RIGHT) / BINS;
  for (const name of GROUPS) {
    legend.querySelector(`[data-group="${name}"]`).hidden = !found[name].length;
    if (!found[name].length) continue;
    const bins = count(found[name], scale);
    const most = Math.max(...bins);
    const outline = bins.map((n, i) => `V${BOTTOM - (n / most) * (BOTTOM - TOP)}H${LEFT + (i + 1) * step}`).join("");
    add(svg, "path", { class: `group ${name}`, d: `M${LEFT} ${BOTTOM}${outline}V${BOTTOM}` });
  }
  add(svg, "path", { class: "grid", d: `M${LEFT} ${BOTTOM}H${width - RIGHT}` });
  add(svg, "path", { class: "chosen", d: "" });
  add(svg, "text", { class: "limit", y: TOP - 8, "text-anchor": "middle" });
  add(svg, "text", { x: LEFT, y: BOTTOM + 20 }, number(scale[0], 2));
  add(svg, "text", { x: width - RIGHT, y: BOTTOM + 20, "text-anchor": "end" }, number(scale[1], 2));
}

export function markThreshold(svg, score) {
  const [low, high] = JSON.parse(svg.dataset.scale);
  const width = svg.viewBox.baseVal.width;
  const x = LEFT + (Math.min(Math.max((score - low) / (high - low), 0), 1)) * (width - LEFT - RIGHT);
  svg.querySelector(".chosen").setAttribute("d", `M${x} ${TOP - 4}V${BOTTOM + 6}`);
  const label = svg.querySelector(".limit");
  label.setAttribute("x", Math.min(Math.max(x, LEFT + 24), width - RIGHT - 24));
  label.textContent = number(score, 2);
}

// What the threshold does to the test images; empty without any.
export function describeTest(scores, reject) {
  const above = (values) => number(values.filter((score) => score > reject).length, 0);
  const values = { found: above(scores.test_defects), defects: scores.test_defects.length, rejected: above(scores.test_good), good: scores.test_good.length };
  return values.defects || values.good ? t("script.models.test", values) : "";
}

// A move that is worth a question: four times as many good parts, or one decision of twenty.
export function largeMove(outlook, one, before) {
  const ratio = Math.max(one.target_fpr / before, before / one.target_fpr);
  return ratio >= 4 || one.changed > outlook.window.inspections / 20;
}

export function describeMove(outlook, one, before, moved) {
  const values = { before: percent(before), now: percent(one.target_fpr), n: number(outlook.window.inspections, 0), changed: number(one.changed, 0) };
  const parts = [t("script.models.move", values)];
  if (outlook.window.inspections) parts.push(t("script.models.move.changed", values) + (moved.length ? ` (${moved.join(", ")}).` : "."));
  else parts.push(t("script.models.window.none"));
  for (const name of ["overkill", "escape"]) {
    const rate = one[name];
    if (rate.value !== null) parts.push(t(`script.models.move.${name}`, { value: percent(rate.value), low: percent(rate.low), high: percent(rate.high) }));
  }
  return [...parts, describeTest(outlook.scores, one.threshold.reject)].filter(Boolean).join(" ");
}
