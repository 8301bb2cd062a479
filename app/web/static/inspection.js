// One inspection: the heatmap's slider, reviews by button and by key, the way to its neighbours.
import { announce, guardUnsaved } from "./base.js";
import { retry } from "./pictures.js";
import { showRates } from "./rates.js";
import { Reviews } from "./reviews.js";
import { t } from "./texts.js";

const article = document.getElementById("inspection");
const { category } = article.dataset;
const LEAVING_MS = 10000;
const byId = (name) => document.getElementById(name);

// --- the picture
const heat = byId("heat");
const opacity = byId("opacity");
const outlines = byId("outlines");

function remembered(name, otherwise) {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise; // a browser that keeps nothing
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // see above
  }
}

function setHeat(percent) {
  opacity.value = percent;
  heat.style.opacity = Number(percent) / 100;
  opacity.setAttribute("aria-valuetext", `${percent} %`);
}

if (heat) {
  setHeat(remembered("flowgauge.heat", "50"));
  opacity.addEventListener("input", () => {
    setHeat(opacity.value);
    remember("flowgauge.heat", opacity.value);
  });
  outlines.addEventListener("change", () => {
    byId("regions").style.visibility = outlines.checked ? "visible" : "hidden";
  });
  // Without its heatmap a part would look like a good one: from the first moment that is said.
  const missing = new Map();
  const told = (image, state) => {
    if (state === "came") missing.delete(image);
    else missing.set(image, state);
    opacity.disabled = missing.size > 0;
    const failed = [...missing.values()].includes("failed");
    byId("picture-late").hidden = failed || missing.size === 0;
    byId("picture-error").hidden = !failed;
  };
  document.querySelectorAll(".stack image").forEach((image) => retry(image, (state) => told(image, state)));
}

// --- reviews
const buttons = [...document.querySelectorAll("[data-verdict]")];
const said = byId("review-said");
const wrong = byId("review-error");
const reviews = new Reviews(article.dataset);
let busy = false;
let sending = ""; // the note of a review that is on its way
let next = null; // the link that was followed while a review is on its way
let leaving = null; // a neighbour is on its way: what is pressed now is meant for it, not for this part

function complain(text) {
  wrong.textContent = text;
  wrong.hidden = false;
}

function unsaved() {
  return buttons.length > 0 && byId("note").value.trim() !== sending;
}

function stay() {
  clearTimeout(leaving);
  leaving = null;
}

// No script is told that a page which was on its way does not come.
function leave() {
  stay();
  leaving = setTimeout(stay, LEAVING_MS);
}

for (const link of document.querySelectorAll("#older, #newer")) {
  link.addEventListener("click", (event) => {
    if (opensElsewhere(event)) return;
    if (!unsaved()) return leave();
    // Said here: whether the browser's own question was answered with staying, no script is told.
    event.preventDefault();
    complain(t("script.review.note"));
    byId("note").closest("details").open = true;
    byId("note").focus();
  });
}
guardUnsaved(() => busy || unsaved());
addEventListener("pageshow", (event) => {
  if (!event.persisted) return; // its own loading has ended, perhaps while a neighbour is on its way
  if (leaving !== null) wrong.hidden = true;
  stay();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || leaving === null) return;
  stop(); // as browsers do, where they let Escape do so
  stay();
});

function opensElsewhere(event) {
  return event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
}

// A review that fails must still be read here: every way on waits for it.
function go(link) {
  if (busy) next = link;
  else link?.click();
}

document.addEventListener(
  "click",
  (event) => {
    const link = event.target.closest("a[href]");
    if (!busy || !link || link.target || opensElsewhere(event) || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    event.stopPropagation();
    go(link);
  },
  { capture: true },
);

function showVerdict(verdict) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  said.textContent = verdict ? t("script.review.is", { verdict: t(`verdict.${verdict}`) }) : "";
}

async function review(verdict) {
  if (busy || !buttons.length) return;
  if (leaving !== null) return complain(t("script.review.leaving"));
  busy = true;
  next = null;
  buttons.forEach((button) => (button.disabled = true));
  wrong.hidden = true;
  // Who has waited for two seconds wants to know for what.
  const waited = setTimeout(() => (said.textContent = t("script.review.saving")), 2000);
  const before = said.textContent;
  try {
    const given = { verdict };
    if (byId("reviewer").value.trim()) given.reviewer = byId("reviewer").value.trim();
    sending = byId("note").value.trim();
    if (sending) given.note = sending;
    await reviews.save(given);
    showVerdict(verdict);
    said.textContent = t("script.review.saved", { verdict: t(`verdict.${verdict}`) });
    if (!unsaved()) byId("note").value = ""; // what was written meanwhile stays for the next press
    if (byId("rates")) showRates(byId("rates"), category);
  } catch (error) {
    next = null;
    clearTimeout(waited);
    said.textContent = before;
    explain(error);
  } finally {
    clearTimeout(waited);
    busy = false;
    sending = "";
    buttons.forEach((button) => (button.disabled = false));
  }
  go(next);
}

function explain(error) {
  if (!error.now) return complain(error.message);
  // Somebody was faster: what they said is shown, and the next press knows of it.
  const { revision, verdict } = error.now;
  reviews.see(revision);
  showVerdict(verdict);
  complain(t("script.review.conflict", { verdict: t(`verdict.${verdict}`) }));
}

if (buttons.length) {
  byId("reviewer").value = remembered("flowgauge.reviewer", "");
  byId("reviewer").addEventListener("change", (event) => remember("flowgauge.reviewer", event.target.value.trim()));
  for (const button of buttons) button.addEventListener("click", () => review(button.dataset.verdict));
}
if (byId("rates")) showRates(byId("rates"), category);

// --- keys
const help = byId("help");
const single = byId("single-keys");
single.checked = remembered("flowgauge.keys", "on") === "on";
single.addEventListener("change", () => remember("flowgauge.keys", single.checked ? "on" : "off"));
byId("keys").addEventListener("click", () => help.showModal());

let before = "50";
const keys = {
  g: () => review("good"),
  d: () => review("defect"),
  ArrowLeft: () => go(byId("older")),
  ArrowRight: () => go(byId("newer")),
  h: () => {
    if (!heat || opacity.disabled) return;
    if (opacity.value !== "0") before = opacity.value;
    setHeat(opacity.value === "0" ? before : "0");
  },
  o: () => outlines?.click(),
  "?": () => help.showModal(),
};

// What a control that has the focus does by itself: a slider or a box that was clicked takes no other key.
const own = {
  range: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"],
  checkbox: [" "],
};

function isTaken(event) {
  const control = event.target.closest("input, textarea, select, dialog");
  return help.open || (control !== null && (own[control.type]?.includes(event.key) ?? true));
}

document.addEventListener("keydown", (event) => {
  if (isTaken(event) || event.ctrlKey || event.altKey || event.metaKey || event.repeat || !single.checked) return;
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

announce(document.querySelector("h1").textContent.trim());
