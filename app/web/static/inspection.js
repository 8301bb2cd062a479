// One inspection: the heatmap's slider, reviews by button and by key, the way to its neighbours.
import { api } from "./api.js";
import { announce, guardUnsaved } from "./base.js";
import { showRates } from "./rates.js";
import { localTimes, t } from "./texts.js";

const article = document.getElementById("inspection");
const { id, category } = article.dataset;
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
}

// --- reviews
const buttons = [...document.querySelectorAll("[data-verdict]")];
const said = byId("review-said");
const wrong = byId("review-error");
let revision = Number(article.dataset.revision);
let busy = false;
let sending = ""; // the note of a review that is on its way
let next = null; // the neighbour asked for while a review is on its way
let leaving = false; // a neighbour is on its way: what is pressed now is meant for it, not for this part

function unsaved() {
  return buttons.length > 0 && byId("note").value.trim() !== sending;
}

for (const link of document.querySelectorAll("#older, #newer")) {
  link.addEventListener("click", (event) => {
    leaving = !(event.ctrlKey || event.metaKey || event.shiftKey); // those open it elsewhere
    if (!leaving || !unsaved()) return;
    // Said here: whether the browser's own question was answered with staying, no script is told.
    event.preventDefault();
    leaving = false;
    wrong.textContent = t("script.review.note");
    wrong.hidden = false;
    byId("note").closest("details").open = true;
    byId("note").focus();
  });
}
guardUnsaved(unsaved);
addEventListener("pageshow", () => (leaving = false));

// A review that fails must still be read here: the way on waits for it.
function go(link) {
  if (busy) next = link;
  else link?.click();
}

function showVerdict(verdict) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  said.textContent = verdict ? t("script.review.is", { verdict: t(`verdict.${verdict}`) }) : "";
}

// As the page shows those that were there when it was loaded.
function list(added) {
  const item = document.createElement("li");
  const verdict = document.createElement("strong");
  const time = document.createElement("time");
  verdict.textContent = t(`verdict.${added.verdict}`);
  time.dateTime = added.created;
  item.append(verdict, " ", time, added.reviewer ? ` · ${added.reviewer}` : "");
  if (added.note) {
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = added.note;
    item.append(document.createElement("br"), note);
  }
  localTimes(item);
  byId("reviews").querySelector("ol").append(item);
  byId("reviews").hidden = false;
}

async function review(verdict) {
  if (busy || leaving || !buttons.length) return;
  busy = true;
  next = null;
  buttons.forEach((button) => (button.disabled = true));
  wrong.hidden = true;
  // Who has waited for two seconds wants to know for what.
  const waited = setTimeout(() => (said.textContent = t("script.review.saving")), 2000);
  const before = said.textContent;
  try {
    const body = { verdict, expected_revision: revision };
    if (byId("reviewer").value.trim()) body.reviewer = byId("reviewer").value.trim();
    sending = byId("note").value.trim();
    if (sending) body.note = sending;
    const added = await api(`/v1/inspections/${id}/reviews`, { method: "POST", body, keepalive: true });
    revision = added.revision;
    showVerdict(verdict);
    list(added);
    said.textContent = t("script.review.saved", { verdict: t(`verdict.${verdict}`) });
    if (!unsaved()) byId("note").value = ""; // what was written meanwhile stays for the next press
    if (byId("rates")) showRates(byId("rates"), category);
  } catch (error) {
    next = null;
    clearTimeout(waited);
    said.textContent = before;
    await explain(error);
  } finally {
    clearTimeout(waited);
    busy = false;
    sending = "";
    buttons.forEach((button) => (button.disabled = false));
  }
  go(next);
}

async function explain(error) {
  let text = error.message;
  if (error.status === 409) {
    // Somebody was faster: what they said is shown, and the next press knows of it.
    const now = await api(`/v1/inspections/${id}`).catch(() => null);
    if (now) {
      const seen = revision;
      revision = now.review.revision;
      // The message does not wait for the list.
      api(`/v1/inspections/${id}/reviews`)
        .then(({ reviews }) => reviews.filter((one) => one.revision > seen && one.revision <= now.review.revision).forEach(list))
        .catch(() => {});
      showVerdict(now.review.verdict);
      text = t("script.review.conflict", { verdict: t(`verdict.${now.review.verdict}`) });
    }
  }
  wrong.textContent = text;
  wrong.hidden = false;
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
    if (!heat) return;
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
