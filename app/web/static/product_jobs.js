// The jobs of a product: progress and log by server-sent events, and what became of them.
import { api } from "./api.js";
import { announce } from "./base.js";
import { ENDED, followJob } from "./follow_job.js";
import { passed } from "./models.js";
import { makeComparison } from "./product_compare.js";
import { onProduct, product, refresh } from "./product.js";
import { number, percent, t } from "./texts.js";

const MAX_LINES = 200;
const SERVES = "The version serves."; // the outcome of a job whose version took over
const RECENT = 50; // ended jobs that are looked at for the last of each kind
const list = document.getElementById("jobs");
const template = document.getElementById("job");
const shown = new Map(); // by kind of job, the newest one

function timeLeft(seconds) {
  if (seconds === null) return "";
  const [key, n] = seconds < 90 ? ["seconds", 5 * Math.max(1, Math.round(seconds / 5))] : ["minutes", Math.round(seconds / 60)];
  return t(`script.teach.left.${key}`, { n: number(n, 0) });
}

function describeResult({ kind, result, outcome }) {
  if (outcome && result.version === product.active) return t("script.teach.job.serves");
  // Why it did not take over matters if versions take over by themselves.
  const said = product.takeover === "automatic" && kind !== "learn" && outcome !== SERVES ? outcome : "";
  if (kind !== "evaluate") return outcome ? `${t("script.teach.job.waits")} ${said}` : "";
  const { defective, good, recall, false_rejects: rejected } = result.summary;
  const found = t("script.teach.found", { n: number(recall * defective, 0), total: number(defective, 0) });
  return good ? `${found} ${t("script.teach.rejected", { n: number(rejected * good, 0), total: number(good, 0) })}` : found;
}

function describe(job) {
  if (job.state === "queued") return t("script.teach.job.queued");
  if (job.state === "failed") return t("script.teach.job.failed", { why: job.error ?? "" });
  if (job.state === "cancelled") return t("script.teach.job.cancelled");
  if (job.state === "succeeded") return `${t("script.teach.job.succeeded")} ${describeResult(job)}`;
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
    this.field("log").closest("details").addEventListener("toggle", () => this.openLog().catch((error) => this.addLines([error.message])));
    list.prepend(this.item);
    this.update(job);
    if (!this.ended) followJob(job.id, (now) => this.update(now), (lines) => this.addLines(lines)).then(refresh);
  }

  field(name) {
    return this.item.querySelector(`[data-field="${name}"]`);
  }

  get ended() {
    return ENDED.includes(this.state);
  }

  update(job) {
    this.job = job;
    const before = this.state;
    this.state = job.state;
    const text = describe(job);
    this.field("text").textContent = text;
    this.field("text").classList.toggle("error", job.state === "failed");
    const share = this.field("share");
    if (job.state === "running") share.value = job.share;
    else share.removeAttribute("value");
    share.hidden = this.ended;
    if (this.field("cancel")) this.field("cancel").hidden = this.ended;
    if (job.kind === "compare" && job.state === "succeeded" && before !== this.state) this.field("result").replaceChildren(makeComparison(job.result));
    if (before && before !== this.state) announce(`${this.kind}: ${text}`);
  }

  addLines(lines) {
    this.lines = [...this.lines, ...lines].slice(-MAX_LINES);
    const log = this.field("log");
    if (log.closest("details").open) log.textContent = this.lines.join("\n");
  }

  // The lines of a job that had ended before come when they are asked for.
  async openLog() {
    const lines = this.lines.length ? [] : (await api(`/v1/jobs/${this.id}`)).lines;
    this.addLines(lines);
  }

  async cancel() {
    const button = this.field("cancel");
    button.disabled = true;
    try {
      await api(`/v1/jobs/${this.id}:cancel`, { method: "POST" });
    } catch (error) {
      announce(error.message);
    }
    button.disabled = false;
  }
}

// Of each kind, the newest job is shown.
function showJobs(jobs) {
  for (const job of jobs) {
    const known = shown.get(job.kind);
    if (known && known.id >= job.id) continue;
    known?.item.remove();
    shown.set(job.kind, new JobView(job));
  }
  for (const view of shown.values()) view.update(view.job); // another version may serve by now
  document.getElementById("running").hidden = shown.size === 0;
}

let asked = false;
onProduct(({ teaching }) => {
  // A job may have ended since the last look.
  if (teaching) showJobs([...(teaching.last ? [teaching.last] : []), ...[...teaching.jobs].reverse()]);
  if (asked) return;
  asked = true;
  const query = new URLSearchParams({ product: passed.category, limit: RECENT });
  api(`/v1/jobs?${query}`).then(({ jobs }) => showJobs(jobs.reverse()), () => {}); // those that run are known
});
