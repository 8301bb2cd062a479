// Lists of inspections: cards are cloned from a template, newest first, up to a limit.
import { retry, retryFailed } from "./pictures.js";
import { clock, localTimes, number, t } from "./texts.js";

export const SYMBOLS = { PASS: "✓", REVIEW: "?", REJECT: "✕" };
const CHECK_DATE_MS = 60000;

export class Cards {
  constructor(list) {
    this.list = list;
    this.limit = Number(list.dataset.limit);
    this.template = document.getElementById("card");
    list.querySelectorAll("img").forEach((image) => retry(image));
    this.date = new Date().toDateString();
    setInterval(() => this.turnDay(), CHECK_DATE_MS);
  }

  // Today's times are shown without a date; after midnight they need one.
  turnDay() {
    const date = new Date().toDateString();
    if (date !== this.date) localTimes(this.list);
    this.date = date;
  }

  card(id) {
    return this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  has(id) {
    return this.card(id) !== null;
  }

  retryPictures() {
    retryFailed(this.list);
  }

  // `one` comes from `toCard`.
  add(one) {
    if (this.has(one.id)) return false;
    const newerThan = [...this.list.children].find((card) => card.dataset.id < one.id);
    if (!newerThan && this.list.children.length >= this.limit) return false;
    this.list.insertBefore(this.make(one), newerThan || null);
    while (this.list.children.length > this.limit) this.list.lastElementChild.remove();
    return true;
  }

  make(one) {
    const card = this.template.content.firstElementChild.cloneNode(true);
    const field = (name) => card.querySelector(`[data-field="${name}"]`);
    card.dataset.id = one.id;
    card.classList.add(one.decision, "new");
    card.querySelector("a").href = `/inspections/${one.id}${this.list.dataset.query}`;
    field("symbol").textContent = SYMBOLS[one.decision];
    field("decision").textContent = t(`decision.${one.decision}`);
    field("category").textContent = one.category;
    field("score").textContent = t("script.score", { score: number(one.score, 2) });
    field("where").textContent = [one.part, one.station].filter(Boolean).join(" · ");
    showWarnings(field("warnings"), one.warnings);
    const time = card.querySelector("time");
    time.dateTime = one.created;
    time.textContent = clock(one.created);
    this.setVerdict(card, one.verdict, one.revision);
    const image = card.querySelector("img");
    if (one.pictured) {
      field("gone").remove();
      image.src = `/inspections/${one.id}/thumbnail.jpg`;
      retry(image);
    } else {
      image.remove();
    }
    return card;
  }

  // The highest revision counts, in whatever order events arrive.
  setVerdict(card, verdict, revision) {
    if (revision < Number(card.dataset.revision)) return;
    card.dataset.revision = revision;
    card.querySelector('[data-field="verdict"]').textContent = verdict ? t(`verdict.${verdict}`) : "";
  }

  reviewed(id, verdict, revision) {
    const card = this.card(id);
    if (card) this.setVerdict(card, verdict, revision);
  }
}

// Short texts of the warnings, each in an element of its own.
export function showWarnings(place, codes) {
  place.replaceChildren(
    ...codes.map((code) => Object.assign(document.createElement("span"), { textContent: t(`warning.${code}`) })),
  );
}

// Ids begin with the milliseconds since 1970 (UUIDv7, RFC 9562).
function time(id) {
  return new Date(parseInt(id.replace("-", "").slice(0, 12), 16)).toISOString();
}

// Converts an inspection from the event stream, the history or a prediction into the fields of a card.
export function toCard(one) {
  return {
    id: one.inspection_id,
    created: one.created || one.created_at || time(one.inspection_id),
    category: one.category || one.model.category,
    decision: one.decision,
    warnings: one.warnings,
    score: one.score,
    part: one.part_id,
    station: one.station,
    verdict: one.review ? one.review.verdict : null,
    revision: one.review ? one.review.revision : 0,
    pictured: one.has_pictures !== false,
  };
}
