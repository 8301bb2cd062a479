// Learning from reviews: what a run would use, its progress, and the version it makes.
import { api } from "./api.js";
import { announce } from "./base.js";
import { activate, complain, home, passed } from "./models.js";
import { localTimes, number, percent, t } from "./texts.js";

const byId = (name) => document.getElementById(`learning-${name}`);
const since = byId("since");
const start = byId("start");
const LEARNING_MS = 3600000;
const POLL_MS = 2000;
let own = false; // a run that was started on this page
let turn = 0; // an outdated answer is ignored

function path() {
  const from = since?.value ? `?${new URLSearchParams({ from: new Date(`${since.value}T00:00`).toISOString() })}` : "";
  return `${home}/learning${from}`; // in the browser's time zone
}

function show(state) {
  const values = { defects: number(state.defects, 0), good: number(state.good, 0), n: number(state.left_out, 0) };
  const uses = [t(state.since ? "script.models.learning.uses" : "script.models.learning.nothing", values)];
  if (state.left_out) uses.push(t("script.models.learning.left_out", values));
  byId("uses").textContent = uses.join(" ");
  if (state.since) {
    const time = document.createElement("time");
    time.dateTime = state.since;
    byId("uses").append(" ", t("script.models.learning.since"), " ", time);
    localTimes(byId("uses"));
  }
  const share = state.progress === null ? null : percent(state.progress);
  byId("obstacle").hidden = !state.obstacle;
  if (state.obstacle) byId("obstacle").textContent = t(`script.models.learning.${state.obstacle}`, { share, min: passed.minDefects });
  byId("progress").hidden = share === null && !own;
  if (share !== null) byId("progress").value = state.progress;
  if (start) start.disabled = own || state.obstacle !== null;
}

async function refresh() {
  const mine = ++turn;
  try {
    const state = await api(path());
    if (mine !== turn) return;
    show(state);
    if (own || state.progress !== null) setTimeout(() => mine === turn && refresh(), POLL_MS);
  } catch (error) {
    if (mine === turn) byId("uses").textContent = error.message;
  }
}

function describe(made) {
  const { learned, threshold, before } = made;
  const values = { version: made.version, defects: number(learned.defects, 0), good: number(learned.good, 0), strength: percent(learned.strength) };
  const caught = { n: number(learned.defects, 0), before: number(learned.caught_before, 0), after: number(learned.caught, 0) };
  const promise = { average: percent(threshold.achievable_fpr), confident: percent(threshold.fpr_at_95_confidence) };
  const scores = { score: number(threshold.reject, 3), before: number(before.reject, 3) };
  return [
    t("script.models.learning.made", values),
    t("script.models.learning.caught", caught),
    t("script.models.learning.threshold", { ...scores, ...promise }),
    ...made.warnings,
  ];
}

start?.addEventListener("click", async () => {
  own = true;
  start.disabled = true;
  byId("error").hidden = true;
  byId("said").replaceChildren();
  byId("progress").hidden = false;
  byId("progress").removeAttribute("value");
  announce(t("script.models.learning.busy"));
  const learning = api(path(), { method: "POST", timeoutMs: LEARNING_MS });
  setTimeout(refresh, POLL_MS);
  try {
    const made = await learning;
    for (const text of describe(made)) {
      const item = document.createElement("p");
      item.textContent = text;
      byId("said").append(item);
    }
    byId("said").firstElementChild.className = "said";
    const button = byId("activate");
    if (button) {
      button.hidden = false;
      button.onclick = () => activate(made.version, button);
    }
  } catch (error) {
    complain(byId("error"), error);
  } finally {
    own = false;
    refresh();
  }
});

since?.addEventListener("change", refresh);
refresh();
