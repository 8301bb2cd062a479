// A choice is enough: no button needs to be pressed.
const form = document.getElementById("filter");
document.documentElement.classList.add("scripted");
form.addEventListener("change", () => {
  const chosen = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) chosen.set(name, value);
  const query = chosen.toString();
  location.assign(form.getAttribute("action") + (query ? `?${query}` : ""));
});
