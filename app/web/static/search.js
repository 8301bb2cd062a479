// Search: times are shown in the browser's zone and sent in UTC, and only criteria that are set are sent.
const form = document.getElementById("search");
const category = form.elements.category;
const margins = [form.elements.min_margin, form.elements.max_margin];

for (const shown of form.querySelectorAll("[data-time]")) {
  const sent = form.elements[shown.dataset.time];
  if (sent.value) {
    const time = new Date(sent.value);
    shown.value = new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  }
  shown.addEventListener("change", () => (sent.value = shown.value ? new Date(shown.value).toISOString() : ""));
}

// Scores of different models do not compare.
function needCategory() {
  category.required = margins.some((margin) => margin.value !== "");
}

margins.forEach((margin) => margin.addEventListener("input", needCategory));
needCategory();
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value.trim()) given.set(name, value.trim());
  location.assign(`${form.getAttribute("action")}?${given}`);
});
