// The page's words for scripts, in its language, and numbers and times as its readers write them.
const texts = JSON.parse(document.getElementById("texts").textContent);
const language = document.documentElement.lang;

export function t(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

export function has(key) {
  return key in texts;
}

export function number(value, digits) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function percent(share) {
  return share.toLocaleString(language, { style: "percent", maximumSignificantDigits: 2 });
}

export function clock(moment, full = false) {
  const date = new Date(moment);
  const today = date.toDateString() === new Date().toDateString();
  const day = today && !full ? {} : { year: "numeric", month: "short", day: "numeric" };
  return date.toLocaleString(language, { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// The server writes times in UTC: only the browser knows where it stands. With data-full the day is always said.
export function localTimes(root = document) {
  for (const one of root.querySelectorAll("time[datetime]")) {
    one.textContent = clock(one.dateTime, "full" in one.dataset);
    one.title = new Date(one.dateTime).toLocaleString(language, { dateStyle: "full", timeStyle: "long" });
  }
}
