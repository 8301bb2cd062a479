// One inspection: heatmap slider, zoom, reviews by button and key, links to adjacent inspections.
import { announce, guardUnsaved } from "./base.js";
import { retry } from "./pictures.js";
import { showRates } from "./rates.js";
import { Reviews, verdictText } from "./reviews.js";
import { t } from "./texts.js";
import { Zoom } from "./zoom.js";

const article = document.getElementById("inspection");
const { category } = article.dataset;
const LEAVING_MS = 10000;
const byId = (name) => document.getElementById(name);

// --- image
const heat = byId("heat");
const opacity = byId("opacity");
const outlines = byId("outlines");

function remembered(name, otherwise) {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise; // storage is disabled
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
  setHeat(remembered("flowgauge.strength", "100"));
  opacity.addEventListener("input", () => {
    setHeat(opacity.value);
    remember("flowgauge.strength", opacity.value);
  });
  outlines.addEventListener("change", () => {
    byId("regions").style.visibility = outlines.checked ? "visible" : "hidden";
  });
}
if (document.querySelector(".stack")) {
  // Without its heatmap a part would look good, so a missing heatmap is reported at once.
  const missing = new Map();
  const update = (image, state) => {
    if (state === "came") missing.delete(image);
    else missing.set(image, state);
    if (opacity) opacity.disabled = missing.size > 0;
    const failed = [...missing.values()].includes("failed");
    byId("picture-late").hidden = failed || missing.size === 0;
    byId("picture-error").hidden = !failed;
  };
  document.querySelectorAll("[data-large]").forEach((image) => retry(image, (state) => update(image, state)));
}

// --- zoom, and a good image beside
const LARGE = 1.5; // from this scale on, images have more pixels
const stacks = [...document.querySelectorAll(".stack")];
const zoom = stacks.length
  ? new Zoom(stacks, (scale) => {
      if (scale < LARGE) return;
      for (const image of document.querySelectorAll("[data-large]")) {
        const large = new Image(); // the small one stays until it is there
        large.addEventListener("load", () => image.setAttribute("href", large.src));
        large.src = image.dataset.large;
        image.removeAttribute("data-large");
      }
    })
  : null;
document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => zoom.key(button.dataset.zoom)));

const wide = byId("wide");
const beside = byId("beside");

function setWide(on) {
  wide.setAttribute("aria-pressed", String(on));
  byId("halves").classList.toggle("wide", on);
}

function setBeside(on) {
  beside.checked = on;
  byId("good").hidden = !on;
}

if (wide) {
  setWide(remembered("flowgauge.wide", "off") === "on");
  wide.addEventListener("click", () => {
    setWide(wide.getAttribute("aria-pressed") === "false");
    remember("flowgauge.wide", wide.getAttribute("aria-pressed") === "true" ? "on" : "off");
  });
}
if (beside) {
  // On a phone there is no room beside the image.
  setBeside(remembered("flowgauge.beside", matchMedia("(min-width: 60rem)").matches ? "on" : "off") === "on");
  beside.addEventListener("change", () => {
    setBeside(beside.checked);
    remember("flowgauge.beside", beside.checked ? "on" : "off");
  });
  byId("good").querySelector("image").addEventListener("error", () => {
    setBeside(false);
    beside.disabled = true;
  });
}

// --- reviews
const buttons = [...document.querySelectorAll("[data-verdict]")];
const goOn = byId("go-on");
const said = byId("review-said");
const wrong = byId("review-error");
const reviews = new Reviews(article.dataset);
let busy = false;
let sending = ""; // the note of the review that is being sent
let next = null; // the link that was clicked while a review is being sent
let leaving = null; // timer; another inspection is loading, and further keys are meant for it

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

// There is no event for a navigation that fails.
function leave() {
  stay();
  leaving = setTimeout(stay, LEAVING_MS);
}

for (const link of document.querySelectorAll("#older, #newer, #next")) {
  link.addEventListener("click", (event) => {
    if (opensElsewhere(event)) return;
    if (!unsaved()) return leave();
    // Shown here, because no event reports that the user chose to stay in the browser's own dialog.
    event.preventDefault();
    complain(t("script.review.note"));
    byId("note").closest("details").open = true;
    byId("note").focus();
  });
}
guardUnsaved(() => busy || unsaved());
addEventListener("pageshow", (event) => {
  if (!event.persisted) return; // the initial load, perhaps while another inspection is loading
  if (leaving !== null) wrong.hidden = true;
  stay();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || leaving === null) return;
  stop(); // browsers do the same, where Escape stops loading
  stay();
});

function opensElsewhere(event) {
  return event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
}

// A failed review must be seen on this page: navigation waits for it.
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

function showVerdict(review) {
  const isGiven = ({ verdict, kind }) => verdict === review.verdict && (kind === undefined || kind === review.kind);
  for (const button of buttons) button.setAttribute("aria-pressed", String(isGiven(button.dataset)));
  said.textContent = t("script.review.is", { verdict: verdictText(review) });
}

async function review({ verdict, kind }) {
  if (busy || !buttons.length) return;
  if (leaving !== null) return complain(t("script.review.leaving"));
  busy = true;
  next = null;
  buttons.forEach((button) => (button.disabled = true));
  wrong.hidden = true;
  // After two seconds the user should see what is pending.
  const waited = setTimeout(() => (said.textContent = t("script.review.saving")), 2000);
  const before = said.textContent;
  try {
    const given = kind ? { verdict, kind } : { verdict };
    if (byId("reviewer").value.trim()) given.reviewer = byId("reviewer").value.trim();
    sending = byId("note").value.trim();
    if (sending) given.note = sending;
    await reviews.save(given);
    if (goOn.checked) next ??= byId("next");
    if ("blind" in article.dataset && !next) {
      byId("note").value = sending = "";
      busy = false; // nothing is unsaved any more
      leave();
      return location.reload(); // with the decision
    }
    showVerdict(given);
    said.textContent = t("script.review.saved", { verdict: verdictText(given) });
    if (!unsaved()) byId("note").value = ""; // text entered meanwhile stays for the next press
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
  // Somebody was faster: show their review; the next press builds on it.
  reviews.see(error.now.revision);
  showVerdict(error.now);
  complain(t("script.review.conflict", { verdict: verdictText(error.now) }));
}

if (buttons.length) {
  byId("reviewer").value = remembered("flowgauge.reviewer", "");
  byId("reviewer").addEventListener("change", (event) => remember("flowgauge.reviewer", event.target.value.trim()));
  for (const button of buttons) button.addEventListener("click", () => review(button.dataset));
  goOn.checked = remembered("flowgauge.go_on", "off") === "on";
  goOn.addEventListener("change", () => remember("flowgauge.go_on", goOn.checked ? "on" : "off"));
}
if (byId("rates")) showRates(byId("rates"), category);

// --- keys
const help = byId("help");
const single = byId("single-keys");
single.checked = remembered("flowgauge.keys", "on") === "on";
single.addEventListener("change", () => remember("flowgauge.keys", single.checked ? "on" : "off"));
byId("keys").addEventListener("click", () => help.showModal());

let before = "100";
const keys = {
  g: () => review({ verdict: "good" }),
  d: () => review({ verdict: "defect" }),
  ArrowLeft: () => go(byId("older")),
  ArrowRight: () => go(byId("newer")),
  n: () => go("blind" in article.dataset ? null : byId("next")),
  h: () => {
    if (!heat || opacity.disabled) return;
    if (opacity.value !== "0") before = opacity.value;
    setHeat(opacity.value === "0" ? before : "0");
  },
  o: () => outlines?.click(),
  w: () => wide?.click(),
  b: () => beside?.click(),
  "+": () => zoom?.key("+"),
  "-": () => zoom?.key("-"),
  0: () => zoom?.key("0"),
  "?": () => help.showModal(),
};

buttons.filter((button) => button.dataset.kind).slice(0, 9).forEach((button, index) => (keys[index + 1] = () => button.click()));

// Keys that a focused control handles itself. A slider or checkbox handles no other keys.
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
