// What people have said of an inspection: how a review is saved, and the list of all.
import { api } from "./api.js";
import { localTimes, t } from "./texts.js";

const keyId = document.querySelector('meta[name="key-id"]').content;
const LOOK_MS = 10000;
// Of these a review may be saved all the same: the answer was lost, or it is in its own way.
const UNSURE = [0, 409, 502, 504];

// Whether a review that is kept is one that was sent from here.
function same(kept, sent) {
  const texts = ["verdict", "note", "reviewer"];
  return (kept.key_id ?? "") === keyId && texts.every((name) => (kept[name] ?? "") === (sent[name] ?? ""));
}

export class Reviews {
  constructor({ id, revision }) {
    this.path = `/v1/inspections/${id}`;
    this.revision = Number(revision); // the latest that the reader has seen
    this.sent = []; // after that one, without an answer that said what became of them
  }

  // Gives the review as it is kept. Where somebody else was faster, the error's `now` is what they said.
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
      return same(own, review) ? own : this.save(review); // the one before it was kept, and now it is seen
    }
  }

  // The review after the latest that was seen, if it is one of those that were sent.
  async own(error) {
    const now = error.status === 409 ? (await api(this.path, { patienceMs: LOOK_MS })).review : null;
    // One that says what nobody has said here needs no closer look.
    const isAnothers = now?.revision === this.revision + 1 && !this.sent.some((one) => one.verdict === now.verdict);
    const { reviews } = isAnothers ? { reviews: [] } : await api(`${this.path}/reviews`, { patienceMs: LOOK_MS });
    const next = reviews.find((one) => one.revision === this.revision + 1);
    if (next && this.sent.some((one) => same(next, one))) return next;
    if (now) error.now = now; // only by now is it known that it is not one's own
    return null;
  }

  take(review) {
    this.revision = review.revision;
    this.sent = [];
    list(review);
    return review;
  }

  // Of a revision that others have made the next review knows.
  see(revision) {
    this.revision = revision;
    this.sent = [];
    // What is said of it does not wait for the list.
    api(`${this.path}/reviews`)
      .then(({ reviews }) => reviews.filter((one) => one.revision <= revision).forEach(list))
      .catch(() => {});
  }
}

// Each once, in their order, as the page shows those that were there when it was loaded.
function list(review) {
  const section = document.getElementById("reviews");
  const items = [...section.querySelectorAll("li")];
  if (items.some((item) => Number(item.dataset.revision) === review.revision)) return;
  const item = document.createElement("li");
  const verdict = document.createElement("strong");
  const time = document.createElement("time");
  item.dataset.revision = review.revision;
  verdict.textContent = t(`verdict.${review.verdict}`);
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
