// Learning from reviews: what a version would learn from, the job that does it, and the version it makes.
import { api } from "./api.js";
import { announce } from "./base.js";
import { followJob } from "./follow_job.js";
import { activate, complain, home, passed } from "./models.js";
import { localTimes, number, percent, t } from "./texts.js";

const byId = (name) => document.getElementById(`learning-${name}`);
const since = byId("since");
const start = byId("start");
const running = new Set(); // ids of jobs
let turn = 0; // an outdated answer is ignored

// In the browser's time zone.
const from = () => (since?.value ? new Date(`${since.value}T00:00`).toISOString() : null);

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
  byId("obstacle").hidden = !state.obstacle;
  if (state.obstacle) byId("obstacle").textContent = t(`script.models.learning.${state.obstacle}`, { min: passed.minDefects });
  if (start) start.disabled = running.size > 0 || state.obstacle !== null;
}

async function refresh() {
  const mine = ++turn;
  try {
    const state = await api(`${home}/learning${from() ? `?${new URLSearchParams({ from: from() })}` : ""}`);
    if (mine === turn) show(state);
  } catch (error) {
    if (mine === turn) byId("uses").textContent = error.message;
  }
}

function describe({ version, learned }) {
  const values = { version, defects: number(learned.defects, 0), good: number(learned.good, 0), strength: percent(learned.strength) };
  const caught = { n: number(learned.defects, 0), before: number(learned.caught_before, 0), after: number(learned.caught, 0) };
  return `${t("script.models.learning.made", values)} ${t("script.models.learning.caught", caught)}`;
}

function showEnd({ state, result, error }) {
  if (state === "failed") complain(byId("error"), { message: error });
  if (state !== "succeeded") return;
  byId("said").textContent = describe(result);
  const button = byId("activate");
  if (button) {
    button.hidden = false;
    button.onclick = () => activate(result.version, button);
  }
}

function follow({ id }) {
  if (running.has(id)) return;
  running.add(id);
  if (start) start.disabled = true;
  byId("error").hidden = true;
  byId("said").replaceChildren();
  byId("progress").hidden = false;
  byId("progress").removeAttribute("value");
  announce(t("script.models.learning.busy"));
  followJob(id, ({ state, share }) => {
    if (state === "running") byId("progress").value = share;
  }).then((job) => {
    showEnd(job);
    running.delete(id);
    byId("progress").hidden = running.size === 0;
    refresh();
  });
}

start?.addEventListener("click", async () => {
  start.disabled = true;
  try {
    const settings = from() ? { since: from() } : {};
    follow(await api("/v1/jobs", { method: "POST", body: { kind: "learn", product: passed.category, settings } }));
  } catch (error) {
    complain(byId("error"), error);
    refresh();
  }
});

since?.addEventListener("change", refresh);
refresh();
const query = new URLSearchParams([["product", passed.category], ["state", "queued"], ["state", "running"]]);
api(`/v1/jobs?${query}`).then(
  ({ jobs }) => jobs.filter(({ kind }) => kind === "learn").forEach(follow),
  () => {}, // the button says it
);
