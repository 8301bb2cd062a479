// The jobs of a product: progress and log by server-sent events.
import { api } from "./api.js";
import { announce } from "./base.js";
import { onProduct, refresh } from "./product.js";
import { number, t } from "./texts.js";

const MAX_LINES = 200;
const ENDED = ["succeeded", "failed", "cancelled"];
const list = document.getElementById("jobs");
const template = document.getElementById("job");
const shown = new Map(); // by id of the job

function timeLeft(seconds) {
  if (seconds === null) return "";
  const [key, n] = seconds < 90 ? ["seconds", 5 * Math.max(1, Math.round(seconds / 5))] : ["minutes", Math.round(seconds / 60)];
  return t(`script.teach.left.${key}`, { n: number(n, 0) });
}

function describe(job) {
  if (job.state === "queued") return t("script.teach.job.queued");
  if (job.state === "failed") return t("script.teach.job.failed", { why: job.error ?? "" });
  if (job.state === "cancelled") return t("script.teach.job.cancelled");
  if (job.state === "succeeded") return [t("script.teach.job.succeeded"), job.outcome].filter(Boolean).join(" ");
  if (job.stage === null) return t("script.teach.job.starting");
  const stage = t(`script.teach.stage.${job.stage}`);
  const steps = job.total > 1 ? t("script.teach.steps", { done: number(job.done ?? 0, 0), total: number(job.total, 0) }) : "";
  return [[stage, steps].filter(Boolean).join(" "), timeLeft(job.seconds_left)].filter(Boolean).join(", ");
}

class JobView {
  constructor(job) {
    this.id = job.id;
    this.kind = t(`script.teach.kind.${job.kind}`);
    this.item = template.content.firstElementChild.cloneNode(true);
    this.lines = [];
    this.field("kind").textContent = this.kind;
    this.field("share").setAttribute("aria-label", this.kind);
    this.field("cancel")?.addEventListener("click", () => this.cancel());
    this.field("log").closest("details").addEventListener("toggle", () => this.writeLog());
    list.prepend(this.item);
    this.update(job);
  }

  field(name) {
    return this.item.querySelector(`[data-field="${name}"]`);
  }

  get ended() {
    return ENDED.includes(this.state);
  }

  update(job) {
    if (this.ended) return;
    const before = this.state;
    this.state = job.state;
    this.field("text").textContent = describe(job);
    this.field("text").classList.toggle("error", job.state === "failed");
    const share = this.field("share");
    if (job.state === "running") share.value = job.share;
    else share.removeAttribute("value");
    share.hidden = this.ended;
    const cancel = this.field("cancel");
    if (cancel) cancel.hidden = this.ended;
    if (this.ended) {
      this.close();
      if (job.lines?.length) this.addLines(job.lines);
    } else this.follow();
    if (before !== this.state && (before || !this.ended)) announce(`${this.kind}: ${describe(job)}`);
    if (before && this.ended) refresh();
  }

  follow() {
    if (this.source || document.hidden) return;
    this.lines = []; // the log comes from its beginning
    this.source = new EventSource(`/v1/jobs/${this.id}/events`);
    this.source.addEventListener("job", (event) => this.update(JSON.parse(event.data)));
    this.source.addEventListener("lines", (event) => this.addLines(JSON.parse(event.data).lines));
    this.source.addEventListener("error", () => this.source?.readyState === EventSource.CLOSED && this.close());
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  addLines(lines) {
    this.lines = [...this.lines, ...lines].slice(-MAX_LINES);
    this.writeLog();
  }

  writeLog() {
    const log = this.field("log");
    if (log.closest("details").open) log.textContent = this.lines.join("\n");
  }

  async cancel() {
    const button = this.field("cancel");
    button.disabled = true;
    try {
      this.update(await api(`/v1/jobs/${this.id}:cancel`, { method: "POST" }));
    } catch (error) {
      announce(error.message);
    }
    button.disabled = false;
    this.ask();
  }

  // For a job that is no longer among those that run.
  async ask() {
    try {
      this.update(await api(`/v1/jobs/${this.id}`));
    } catch {
      // asked again at the next look at the product
    }
  }
}

onProduct(({ teaching }) => {
  if (!teaching) return;
  const { jobs, last } = teaching;
  for (const job of [...(last ? [last] : []), ...[...jobs].reverse()]) {
    if (shown.has(job.id)) shown.get(job.id).update(job);
    else shown.set(job.id, new JobView(job));
  }
  const current = new Set(jobs.map((job) => job.id));
  for (const view of shown.values()) if (!view.ended && !current.has(view.id)) view.ask();
  // Of the jobs that ended, the last one of each kind stays.
  const kinds = new Set();
  for (const view of [...shown.values()].reverse()) {
    if (view.ended && kinds.has(view.kind)) {
      view.item.remove();
      shown.delete(view.id);
    }
    kinds.add(view.kind);
  }
  document.getElementById("running").hidden = shown.size === 0;
});

document.addEventListener("visibilitychange", () => {
  for (const view of shown.values()) if (document.hidden) view.close();
});
