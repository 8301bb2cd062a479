// The live wall: new inspections, counters and the state of the connection.
import { api } from "./api.js";
import { showOffline } from "./base.js";
import { Cards, toCard } from "./cards.js";
import { LineView, RejectSound, offerFullScreen } from "./line.js";
import { Live } from "./live.js";
import { number, t } from "./texts.js";

const COUNT_AGAIN_MS = 60000;
const FIRST_WAIT_S = 1;
const MAX_WAIT_S = 30;
const MAX_COUNTED = 999;
const list = document.getElementById("inspections");
const { category, station, decision, limit } = list.dataset;
const cards = new Cards(list);
const counts = document.getElementById("counts");
const counted = new Set(); // since the counters were last fetched
let paused = false;
const waiting = new Map(); // by id, the newest inspections that are not shown yet
const missed = new Set(); // ids of all inspections that are not shown yet, up to MAX_COUNTED + 1
const early = new Map(); // reviews of inspections that may still arrive, by id
const state = document.getElementById("state");
const line = new LineView();
const sound = new RejectSound(document.getElementById("sound"));
let turn = 0; // number of the connection: work of an earlier one stops
let drawing = false;

function query(values) {
  const given = Object.entries(values).filter(([, value]) => value);
  return given.length ? "?" + new URLSearchParams(given) : "";
}

function setState(now) {
  if (state.dataset.state === now) return;
  state.dataset.state = now;
  state.textContent = t(`script.live.${now}`);
}

function setCount(name, value) {
  const figure = counts.querySelector(`[data-count="${name}"]`);
  figure.dataset.value = value;
  figure.textContent = number(value, 0);
  const values = [...counts.querySelectorAll("[data-count]")].map((one) => [one.dataset.count, Number(one.dataset.value)]);
  line.setYield(Object.fromEntries(values));
}

// Fetches the counts of the last hours. Inspections that arrive meanwhile may be missing until the next fetch.
async function count() {
  const { decisions, unreviewed, trend, drift } = await api(`/wall/counts${query({ category, station })}`);
  counted.clear();
  for (const [name, value] of Object.entries(decisions)) setCount(name, value);
  line.setTrend(trend);
  line.setDrift(drift);
  const audit = document.getElementById("audit");
  if (!audit) return;
  audit.hidden = unreviewed === 0;
  audit.querySelector("span").textContent = number(unreviewed, 0);
}

async function catchUp() {
  const page = await api(`/v1/inspections${query({ category, station, decision, limit })}`);
  for (const one of page.inspections) {
    arrive(toCard(one));
    reviewed(one.inspection_id, one.review.verdict, one.review.revision);
  }
  count().catch(() => {}); // fetched again later
}

// A new connection does not deliver earlier events: the wall is live only after the list was loaded.
async function goLive() {
  const mine = ++turn;
  setState("waiting");
  for (let wait = FIRST_WAIT_S; mine === turn; wait = Math.min(2 * wait, MAX_WAIT_S)) {
    try {
      await catchUp();
      if (mine !== turn) return;
      early.clear();
      setState("live");
      return;
    } catch (error) {
      if (error.status === undefined) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? wait)));
    }
  }
}

// Newest first, up to the limit.
function newest() {
  return [...waiting.values()].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, cards.limit);
}

function arrive(one) {
  if ((decision && one.decision !== decision) || cards.has(one.id)) return;
  if (!waiting.has(one.id)) waiting.set(one.id, one);
  if (early.has(one.id)) reviewed(one.id, ...early.get(one.id));
  if (missed.size <= MAX_COUNTED) missed.add(one.id);
  if (waiting.size > 4 * cards.limit) {
    const kept = newest();
    waiting.clear();
    for (const other of kept) waiting.set(other.id, other);
  }
  if (paused) showPaused();
  else if (!drawing) {
    drawing = true;
    setTimeout(show, 60); // groups inspections that arrive together
  }
}

// Also updates inspections that are not shown yet.
function reviewed(id, verdict, revision) {
  cards.reviewed(id, verdict, revision);
  const one = waiting.get(id);
  if (one && one.revision <= revision) Object.assign(one, { verdict, revision });
}

function show() {
  drawing = false;
  if (paused) return;
  for (const one of newest().reverse()) cards.add(one);
  if (waiting.size) line.show(newest()[0]);
  waiting.clear();
  missed.clear();
  if (list.children.length) document.getElementById("nothing").hidden = true;
}

const pause = document.getElementById("pause");

function showPaused() {
  const n = missed.size > MAX_COUNTED ? `${MAX_COUNTED}+` : missed.size;
  pause.textContent = paused ? t("script.live.resume", { n }) : t("script.live.pause");
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  showPaused();
  if (!paused) show();
});

for (const figure of counts.querySelectorAll("[data-count]")) figure.dataset.value = figure.textContent.replace(/\D/g, "");
offerFullScreen(document.getElementById("full"));

new Live(query({ category, station }), {
  closed() {
    turn += 1;
  },
  connecting() {
    if (state.dataset.state === "live") setState("waiting");
  },
  open() {
    showOffline("stream", false);
    cards.retryPictures();
    goLive();
  },
  lost() {
    turn += 1;
    setState("offline");
    showOffline("stream", true);
  },
  inspection(event) {
    const one = toCard(event);
    if (!counted.has(one.id) && !cards.has(one.id)) {
      counted.add(one.id);
      if (one.decision === "REJECT") sound.play();
      setCount(one.decision, Number(counts.querySelector(`[data-count="${one.decision}"]`).dataset.value) + 1);
    }
    arrive(one);
  },
  review(event) {
    const { inspection_id: id, verdict, revision } = event;
    reviewed(id, verdict, revision);
    if (state.dataset.state !== "live" && !cards.has(id) && !waiting.has(id)) early.set(id, [verdict, revision]);
  },
});
setInterval(() => document.hidden || count().catch(() => {}), COUNT_AGAIN_MS);
