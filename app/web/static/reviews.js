// Reviews of an inspection: saving one, and the list of all.
import { api } from "./api.js";
import { localTimes, t } from "./texts.js";

const keyId = document.querySelector('meta[name="key-id"]').content;
const LOOK_MS = 10000;
// With these statuses the review may be saved: the answer was lost, or the review conflicts with itself.
const UNSURE = [0, 409, 502, 504];

// The verdict with its kind of defect, for people.
export function verdictText({ verdict, kind }) {
  return kind ? t("script.review.kind", { verdict: t(`verdict.${verdict}`), kind }) : t(`verdict.${verdict}`);
}

// True if a stored review was sent from this page.
function isSame(kept, sent) {
  const texts = ["verdict", "kind", "note", "reviewer"];
  return (kept.key_id ?? "") === keyId && texts.every((name) => (kept[name] ?? "") === (sent[name] ?? ""));
}

export class Reviews {
  constructor({ id, revision }) {
    this.path = `/v1/inspections/${id}`;
    this.revision = Number(revision); // the latest that the user has seen
    this.sent = []; // reviews sent after that one whose outcome is unknown
  }

  // Returns the stored review. If somebody else was faster, the error's `now` is their review.
  async save(review) {
    this.sent.push(review);
    const body = { ...review, expected_revision: this.revision };
    try {
      return this.take(await api(`${this.path}/reviews`, { method: "POST", body, keepalive: true }));
    } catch (error) {
      if (!UNSURE.includes(error.status)) {
        this.sent.pop();
        throw error;
      }
      const own = await this.own(error).catch(() => null);
      if (!own) throw error;
      this.take(own);
      return isSame(own, review) ? own : this.save(review); // an earlier attempt was stored; now it counts as seen
    }
  }

  // Returns the review after the latest seen one if this page has sent it.
  async own(error) {
    const now = error.status === 409 ? (await api(this.path, { timeoutMs: LOOK_MS })).review : null;
    // A verdict that was not sent from here is certainly somebody else's.
    const isAnothers = now?.revision === this.revision + 1 && !this.sent.some((one) => one.verdict === now.verdict);
    const { reviews } = isAnothers ? { reviews: [] } : await api(`${this.path}/reviews`, { timeoutMs: LOOK_MS });
    const next = reviews.find((one) => one.revision === this.revision + 1);
    if (next && this.sent.some((one) => isSame(next, one))) return next;
    if (now) error.now = now; // only now is it certain that the review is not our own
    return null;
  }

  take(review) {
    this.revision = review.revision;
    this.sent = [];
    list(review);
    return review;
  }

  // Marks a revision of others as seen: the next review builds on it.
  see(revision) {
    this.revision = revision;
    this.sent = [];
    // The list is updated in the background.
    api(`${this.path}/reviews`)
      .then(({ reviews }) => reviews.filter((one) => one.revision <= revision).forEach(list))
      .catch(() => {});
  }
}

// Adds a review to the list, once and in order, in the form of the page's template.
function list(review) {
  const section = document.getElementById("reviews");
  const items = [...section.querySelectorAll("li")];
  if (items.some((item) => Number(item.dataset.revision) === review.revision)) return;
  const item = document.createElement("li");
  const verdict = document.createElement("strong");
  const time = document.createElement("time");
  item.dataset.revision = review.revision;
  verdict.textContent = verdictText(review);
  time.dateTime = review.created;
  item.append(verdict, " ", time, review.reviewer ? ` · ${review.reviewer}` : "");
  if (review.note) {
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = review.note;
    item.append(document.createElement("br"), note);
  }
  localTimes(item);
  const later = items.find((one) => Number(one.dataset.revision) > review.revision);
  section.querySelector("ol").insertBefore(item, later ?? null);
  section.hidden = false;
}
