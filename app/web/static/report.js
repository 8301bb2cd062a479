// The form shows the shift in local time; the address has UTC.
import { onChoice } from "./choice.js";
import { retry } from "./pictures.js";

const language = document.documentElement.lang;
const form = document.getElementById("shift");
const [from, to] = [form.elements.from, form.elements.to];
const preset = document.getElementById("preset");

function local(date) {
  const two = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}T${two(date.getHours())}:${two(date.getMinutes())}`;
}

// The field shows minutes. While it is unchanged it stands for the exact moment of the page.
function momentOf(field) {
  const made = new Date(field.dataset.moment);
  return field.value === local(made) ? made : new Date(field.value);
}

function day(offset, hour = 0) {
  const date = new Date();
  date.setDate(date.getDate() + offset);
  date.setHours(hour, 0, 0, 0);
  return date;
}

// The latest shift with these hours that has begun.
function shift(begin, end) {
  const today = day(0, begin) <= new Date() ? 0 : -1;
  return [day(today, begin), day(today + (end <= begin ? 1 : 0), end)];
}

const times = {
  last: () => [new Date(Date.now() - 8 * 3600e3), new Date(Math.ceil(Date.now() / 60e3) * 60e3)],
  today: () => [day(0), day(1)],
  yesterday: () => [day(-1), day(0)],
  "6-14": () => shift(6, 14),
  "14-22": () => shift(14, 22),
  "22-6": () => shift(22, 6),
};

// Resets the form, also after Back, but not if the user has chosen while the page loaded.
let chosen = false;
form.addEventListener("input", () => (chosen = true));
addEventListener("pageshow", (event) => {
  if (chosen && !event.persisted) return;
  form.reset();
  from.setCustomValidity("");
  for (const one of [from, to]) one.value = local(new Date(one.dataset.moment));
});
// The date is shown once: in the first row of a table, and where a new day begins.
for (const table of document.querySelectorAll(".hours")) {
  let before = "";
  for (const one of table.querySelectorAll("time.hour")) {
    const moment = new Date(one.dateTime);
    const hour = moment.toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit" });
    const date = moment.toLocaleDateString(language, { day: "numeric", month: "short" });
    one.textContent = moment.toDateString() === before ? hour : `${date}\n${hour}`;
    before = moment.toDateString();
  }
}
// Days are those of the report's time zone, which may differ from the reader's.
for (const one of document.querySelectorAll("time.day")) {
  const date = new Date(one.dataset.date); // midnight of UTC
  one.textContent = date.toLocaleDateString(language, { day: "numeric", month: "short", timeZone: "UTC" });
}
for (const one of document.querySelectorAll(".span time")) {
  one.textContent = new Date(one.dateTime).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

document.querySelectorAll(".rejects img").forEach((image) => retry(image));

preset.addEventListener("change", () => {
  if (!times[preset.value]) return;
  const [begin, end] = times[preset.value]();
  [from.value, to.value] = [begin, end].map(local);
  from.setCustomValidity("");
});
onChoice(preset, form.querySelector("button"), () => {
  if (!times[preset.value]) return false;
  return show(...times[preset.value]());
});
for (const one of [from, to]) one.addEventListener("change", () => (preset.value = ""));

function show(begin, end) {
  if (begin >= end) {
    from.setCustomValidity(form.dataset.order);
    from.reportValidity();
    return false;
  }
  const query = new URLSearchParams({ from: begin.toISOString(), to: end.toISOString() });
  if (form.elements.station.value) query.set("station", form.elements.station.value);
  query.set("tz", Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC"); // time zone of the days in the chart
  location.assign(`/report?${query}`);
  return true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show(momentOf(from), momentOf(to));
});
from.addEventListener("input", () => from.setCustomValidity(""));
to.addEventListener("input", () => from.setCustomValidity(""));
document.getElementById("print").addEventListener("click", () => print());
