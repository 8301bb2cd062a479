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

// In two digits that count. Where most is there, those of what is missing count: only all of it is 100 %.
export function percent(share) {
  if (share <= 0.5 || share >= 1) return share.toLocaleString(language, { style: "percent", maximumSignificantDigits: 2 });
  const missing = Math.max(Number((1 - share).toPrecision(2)), 0.0001);
  return (1 - missing).toLocaleString(language, { style: "percent", maximumFractionDigits: 2 });
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
