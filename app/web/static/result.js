// The decision on an image, with its score, in the form of result.html.
import { showWarnings, SYMBOLS } from "./cards.js";
import { number, t } from "./texts.js";

function words(p, n) {
  const k = Math.max(0, Math.round(p * (n + 1)) - 1);
  return t(`script.pvalue.${k === 0 ? "none" : 2 * k > n ? "usual" : "some"}`, { k, n });
}

export function fillResult(section, answer, name) {
  const field = (name) => section.querySelector(`[data-field="${name}"]`);
  section.classList.remove("PASS", "REVIEW", "REJECT");
  section.classList.add(answer.decision);
  field("symbol").textContent = SYMBOLS[answer.decision];
  field("decision").textContent = t(`decision.${answer.decision}`);
  field("score").textContent = t("script.score.limit", {
    score: number(answer.score, 3),
    reject: number(answer.threshold.reject, 3),
  });
  field("words").textContent = words(answer.p_value, answer.threshold.n_calibration);
  showWarnings(field("warnings"), answer.warnings);
  field("name").textContent = name;
  section.hidden = false;
}
