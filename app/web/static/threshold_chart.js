// Overkill and escape rates over the slider's positions, each with its uncertainty.
import { percent } from "./texts.js";

const SPACE = "http://www.w3.org/2000/svg";
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [220, 52, 24, 12, 184];
const LABEL = 64; // pixels that a label on the lower axis needs
// Possible ends of the axis, with their number of steps.
const AXES = [[0.02, 4], [0.05, 5], [0.1, 5], [0.2, 4], [0.3, 3], [0.5, 5], [0.75, 3], [1, 4]];

function add(svg, name, attributes, text) {
  const one = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  svg.append(one);
  return one;
}

// The drawing is as wide as its element, so that its text has the same size everywhere.
function widthOf(svg) {
  return Math.max(svg.getBoundingClientRect().width, 240);
}

function place(outlook, i, width) {
  return LEFT + (i / Math.max(outlook.positions.length - 1, 1)) * (width - LEFT - RIGHT);
}

// The axis ends above the estimates; longer intervals are cut.
function top(outlook) {
  const values = outlook.positions.flatMap((one) => [one.overkill.value, one.escape.value, one.target_fpr]);
  const max = Math.max(...values.filter((value) => value !== null));
  return AXES.find(([limit]) => max * 1.15 <= limit) ?? AXES.at(-1);
}

export function drawOutlook(svg, outlook) {
  const title = svg.querySelector("title");
  const width = widthOf(svg);
  const x = (i) => place(outlook, i, width);
  svg.replaceChildren(title);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const [limit, steps] = top(outlook);
  const y = (value) => BOTTOM - (Math.min(value, limit) / limit) * (BOTTOM - TOP);
  for (let step = 0; step <= steps; step += 1) {
    const value = (limit * step) / steps;
    add(svg, "path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` });
    add(svg, "text", { x: LEFT - 6, y: y(value) + 5, "text-anchor": "end" }, percent(value));
  }
  for (const name of ["overkill", "escape"]) {
    const known = outlook.positions.map((one, i) => [x(i), one[name]]).filter(([, rate]) => rate.value !== null);
    if (!known.length) continue;
    const high = known.map(([at, rate]) => `${at},${y(rate.high)}`);
    const low = known.map(([at, rate]) => `${at},${y(rate.low)}`).reverse();
    add(svg, "polygon", { class: `open ${name}`, points: [...high, ...low].join(" ") });
    add(svg, "polyline", { class: `curve ${name}`, points: known.map(([at, rate]) => `${at},${y(rate.value)}`).join(" ") });
  }
  const every = Math.ceil((outlook.positions.length * LABEL) / (width - LEFT - RIGHT));
  outlook.positions.forEach((one, i) => {
    if (i % every === 0) add(svg, "text", { x: x(i), y: BOTTOM + 26, "text-anchor": "middle" }, percent(one.target_fpr));
    if (one.in_force) add(svg, "path", { class: "in-force", d: `M${x(i)} ${TOP}V${BOTTOM}` });
  });
  add(svg, "path", { class: "chosen", d: "" });
}

export function markPosition(svg, outlook, i) {
  const x = place(outlook, i, widthOf(svg));
  svg.querySelector(".chosen").setAttribute("d", `M${x} ${TOP - 4}V${BOTTOM + 4}M${x - 7} ${BOTTOM + 11}L${x} ${BOTTOM + 2}L${x + 7} ${BOTTOM + 11}Z`);
}
