// Texts of scripts in the page's language, and numbers and times in its format.
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

// Two significant digits; near 100 %, two significant digits of the remainder: only a full share is 100 %.
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

// Converts the server's UTC times to local time. With data-full the date is always shown.
export function localTimes(root = document) {
  for (const one of root.querySelectorAll("time[datetime]")) {
    one.textContent = clock(one.dateTime, "full" in one.dataset);
    one.title = new Date(one.dateTime).toLocaleString(language, { dateStyle: "full", timeStyle: "long" });
  }
}
