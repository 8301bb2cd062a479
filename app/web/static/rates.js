// Overkill and escape of a category, as reviews tell them.
import { api } from "./api.js";
import { number, percent, t } from "./texts.js";

const turns = new WeakMap(); // of a section, how often it was asked for: the answer to an earlier question says nothing

function said(rate) {
  if (rate.value === null) return t("script.rates.unknown");
  return t("script.rates.value", { value: percent(rate.value), low: percent(rate.low), high: percent(rate.high) });
}

export async function showRates(section, category) {
  const field = (name) => section.querySelector(`[data-rate="${name}"]`);
  const turn = (turns.get(section) ?? 0) + 1;
  turns.set(section, turn);
  try {
    const rates = await api(`/v1/models/${encodeURIComponent(category)}/rates`);
    if (turns.get(section) !== turn) return;
    const counts = Object.values(rates.decisions);
    const sum = (name) => number(counts.reduce((total, one) => total + one[name], 0), 0);
    for (const name of ["overkill", "escape"]) {
      field(name).textContent = said(rates[name]);
      field(name).title = rates[name].reason || "";
    }
    field("reviewed").textContent = t("script.rates.reviewed", {
      good: sum("reviewed_good"),
      defect: sum("reviewed_defect"),
      all: sum("inspections"),
    });
  } catch (error) {
    if (turns.get(section) === turn) field("overkill").textContent = error.message;
  }
}
