// The threshold slider: the effect of each false-reject rate, and saving one of them.
import { api } from "./api.js";
import { announce } from "./base.js";
import { confirmed } from "./confirm.js";
import { home, complain } from "./models.js";
import { localTimes, number, percent, t } from "./texts.js";
import { drawOutlook, markPosition } from "./threshold_chart.js";
import { describeMove, describeTest, drawScores, largeMove, markThreshold } from "./threshold_scores.js";

const byId = (name) => document.getElementById(`threshold-${name}`);
const slider = byId("slider");
const band = byId("band");
const station = byId("station");
const form = byId("form");
const wrong = byId("error");
let turn = 0;
let outlook = null;
let known = false; // true if the set rates are up to date
let etag = null; // of the shown rates: a save over a colleague's change is refused
let set = null; // the set rates; null for those of the version

function chosen() {
  return outlook.positions[Number(slider.value)];
}

function bandAsSet() {
  return set.review_fpr === null ? "null" : String(set.review_fpr);
}

function changedBand() {
  return band.value !== bandAsSet();
}

function rateAsSet(rates) {
  return rates.target_fpr ?? rates.threshold.target_fpr;
}

function changedRate() {
  return !chosen().in_force && chosen().target_fpr !== rateAsSet(set);
}

// "As in the version" is the version's own band, which disappears if the rate is wider.
function bandToTry() {
  return band.value === "null" ? band.selectedOptions[0].dataset.own : band.value;
}

function settable(one) {
  return one.settable || band.value === "null";
}

// Rates are shown with their interval, because a bare value would look too certain.
function say(name, rate) {
  const value = document.querySelector(`[data-figure="${name}"]`);
  const note = document.querySelector(`[data-note="${name}"]`);
  value.textContent = rate.value === null ? "–" : percent(rate.value);
  note.textContent = rate.value === null ? t("script.models.unknown") : t("script.models.interval", { low: percent(rate.low), high: percent(rate.high) });
  note.title = rate.reason || "";
}

function moved(one) {
  return one.changes.map((change) =>
    t("script.models.moved", { n: number(change.inspections, 0), from: t(`decision.${change.taken}`), to: t(`decision.${change.would}`) }),
  );
}

function sayChanges(one) {
  document.querySelector('[data-figure="changed"]').textContent = number(one.changed, 0);
  const all = t("script.models.of", { n: number(outlook.window.inspections, 0) });
  document.querySelector('[data-note="changed"]').textContent = [all, ...moved(one)].join(" · ");
}

function promise(one) {
  const threshold = one.threshold;
  const values = {
    rate: percent(one.target_fpr),
    average: percent(threshold.achievable_fpr),
    confident: percent(threshold.fpr_at_95_confidence),
    n: number(threshold.n_calibration, 0),
    score: number(threshold.reject, 3),
  };
  const parts = threshold.certified ? [] : [t("script.models.uncertified", values)];
  // Rank 1: the threshold is the highest score.
  if (Math.round(threshold.achievable_fpr * (threshold.n_calibration + 1)) === 1) parts.push(t("script.models.single"));
  parts.push(t("script.models.promise", values), t("script.models.score", values));
  if (!settable(one)) parts.push(t("script.models.band_first"));
  return parts.join(" ");
}

function show() {
  const one = chosen();
  const rate = percent(one.target_fpr);
  const inForce = one.in_force ? ` (${t("script.models.in_force")})` : "";
  byId("rate").textContent = rate + inForce;
  const known = one.threshold.certified ? t("script.models.sure") : t("script.models.unsure");
  slider.setAttribute("aria-valuetext", `${rate}${inForce}, ${known}, ${t("script.models.changes", { n: one.changed })}`);
  byId("promise").textContent = promise(one);
  byId("promise").className = one.threshold.certified ? "" : "unsure";
  say("overkill", one.overkill);
  say("escape", one.escape);
  sayChanges(one);
  byId("test").textContent = describeTest(outlook.scores, one.threshold.reject);
  if (!byId("rates").hidden) markPosition(byId("chart"), outlook, Number(slider.value));
  markThreshold(byId("scores"), one.threshold.reject);
  if (form) {
    byId("save").disabled = (!changedRate() && !changedBand()) || !settable(one);
    byId("reset").disabled = one.in_force && !changedBand();
  }
}

// Without reviews there are no rates to draw; the scores of the calibration are always known.
function draw() {
  byId("rates").hidden = outlook.positions.every((one) => one.overkill.value === null && one.escape.value === null);
  if (!byId("rates").hidden) drawOutlook(byId("chart"), outlook);
  drawScores(byId("scores"), byId("samples"), outlook);
}

// What the figures were of is no longer chosen, and those of the choice could not be had.
function blank() {
  slider.disabled = true;
  for (const one of byId("figures").querySelectorAll("[data-figure], [data-note]")) one.textContent = "";
  for (const name of ["rate", "promise", "test", "window"]) byId(name).textContent = "";
  for (const name of ["chart", "scores"]) byId(name).replaceChildren(byId(name).querySelector("title"));
  if (!form) return;
  byId("save").disabled = true;
  byId("reset").disabled = false; // asks again
}

// Of several at once the last one counts. With `anew` what is set is fetched again, and what others did is taken over:
// but for the rate and the band that are to be kept.
async function load({ rate = null, keepBand = false, anew = true } = {}) {
  const mine = (turn += 1);
  wrong.hidden = true;
  if (anew) known = false;
  try {
    const query = new URLSearchParams();
    if (!known) {
      const rates = await api(`${home}/thresholds`, { etag: true });
      if (mine !== turn) return;
      ({ etag, answer: set } = rates);
      known = true;
    }
    if (![...band.options].some((option) => option.value === bandAsSet())) {
      band.append(new Option(t("script.models.band", { rate: percent(set.review_fpr) }), bandAsSet()));
    }
    if (!keepBand) band.value = bandAsSet();
    else if (changedBand()) query.set("review_fpr", bandToTry());
    if (station?.value) query.set("station", station.value);
    // It may have been there only because it was set.
    if (rate !== null) for (const one of outlook.positions) query.append("target_fpr", one.target_fpr);
    const found = await api(`${home}/thresholds/outlook?${query}`);
    if (mine !== turn) return;
    outlook = found;
    slider.max = outlook.positions.length - 1;
    slider.value = outlook.positions.findIndex((one) => (rate === null ? one.in_force : one.target_fpr === rate));
    slider.disabled = false;
    draw();
    const window_ = outlook.window;
    byId("window").textContent = window_.inspections
      ? t("script.models.window", { n: number(window_.inspections, 0), from: new Date(window_.from).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }), reviewed: number(reviewed(window_), 0) })
      : t("script.models.window.none");
    show();
  } catch (error) {
    if (mine !== turn) return;
    blank();
    complain(wrong, error);
  }
}

function reviewed(seen) {
  return Object.values(seen.decisions).reduce((sum, one) => sum + one.reviewed_good + one.reviewed_defect, 0);
}

// Finds who made the last change and why, from the report on the last hours.
async function describeChange(actions) {
  const report = await api("/v1/reports/shift").catch(() => null);
  const last = report?.changes.filter((one) => actions.includes(one.action) && one.target.split("/")[0] === set.category).pop();
  return last ? t("script.models.conflict.by", { who: last.actor, why: last.reason || "–" }) : "";
}

function bandText(value) {
  return [...band.options].find((option) => option.value === String(value)).textContent;
}

// Values that the user has not touched are taken from the other change: saving again must not undo it.
async function conflict() {
  const before = set;
  const rate = changedRate() ? chosen().target_fpr : null;
  const keepBand = changedBand();
  const mine = [
    ...(rate === null ? [] : [percent(rate)]),
    ...(keepBand ? [t("script.models.conflict.mine", { band: bandText(band.value) })] : []),
  ].join(", ");
  await Promise.all([load({ rate, keepBand }), renewCalibrations()]);
  if (slider.disabled) return; // the reason is already shown
  const changed = [];
  const acts = [];
  if (before.target_fpr !== set.target_fpr) {
    changed.push(t("script.models.conflict.rate", { before: percent(rateAsSet(before)), now: percent(rateAsSet(set)) }));
  }
  if (before.review_fpr !== set.review_fpr) {
    changed.push(t("script.models.conflict.band", { before: bandText(before.review_fpr), now: bandText(set.review_fpr) }));
  }
  if (changed.length) acts.push("model.thresholds");
  if (before.version !== set.version) {
    changed.push(t("script.models.conflict.version", { version: set.version }));
    acts.push("model.activate", "model.rollback");
  }
  if (!changed.length) {
    changed.push(t("script.models.conflict.calibration"));
    acts.push("model.calibrate");
  }
  const text = t("script.models.conflict", { what: changed.join(", "), mine });
  complain(wrong, new Error(`${text} ${await describeChange(acts)}`));
}

// Reloads the calibrations beside the slider from the current page, so that only the server words them. If that fails,
// they are removed, because they no longer hold.
async function renewCalibrations() {
  const shown = document.getElementById("calibrations");
  if (!shown) return;
  const text = await fetch(location.pathname, { credentials: "same-origin" }).then((response) => response.text(), () => "");
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("calibrations");
  if (fresh) localTimes(fresh);
  shown.replaceChildren(...(fresh?.children ?? []));
}

form?.addEventListener("submit", async () => {
  const one = chosen();
  const body = { reason: byId("reason").value.trim() };
  if (changedRate()) body.target_fpr = one.target_fpr;
  if (changedBand()) body.review_fpr = JSON.parse(band.value);
  if (!body.reason) return byId("reason").focus();
  wrong.hidden = true;
  if (changedRate() && largeMove(outlook, one, rateAsSet(set))) {
    const text = describeMove(outlook, one, rateAsSet(set), moved(one));
    if (!(await confirmed(t("script.models.move.title"), text, t("script.models.move.yes")))) return;
  }
  byId("save").disabled = true;
  try {
    await api(`${home}/thresholds`, { method: "PATCH", headers: { "If-Match": etag }, body });
    byId("reason").value = "";
    await Promise.all([load(), renewCalibrations()]);
    byId("said").textContent = t("script.models.saved", { rate: percent(one.target_fpr) });
    announce(byId("said").textContent);
  } catch (error) {
    if (error.status === 412) await conflict();
    else complain(wrong, error);
    if (!slider.disabled) show();
  }
});

byId("reset")?.addEventListener("click", () => load());
addEventListener("resize", () => {
  if (slider.disabled) return;
  draw();
  show();
});
slider.addEventListener("input", () => {
  byId("said").textContent = "";
  show();
});
// Keeps the chosen values, saved or not.
function reload() {
  load({ rate: outlook && chosen().target_fpr, keepBand: true, anew: false });
}

band.addEventListener("change", reload);
addEventListener("calibration-changed", () => Promise.all([load(), renewCalibrations()]));
addEventListener("region-changed", reload); // earlier inspections are no longer comparable
station?.addEventListener("change", () => load({ anew: false }));
load();
