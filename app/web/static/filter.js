// A choice is enough: no button needs to be pressed.
const form = document.getElementById("filter");
document.documentElement.classList.add("scripted");
// After the browser's Back the page shows what it was made for, which may not be what was chosen on it last.
addEventListener("pageshow", () => form.reset());
form.addEventListener("change", () => {
  const chosen = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) chosen.set(name, value);
  const query = chosen.toString();
  location.assign(form.getAttribute("action") + (query ? `?${query}` : ""));
});
