// Findings of the data check by kind; all images of a kind can be excluded at once.
import { api } from "./api.js";
import { complain, passed } from "./models.js";
import { onProduct, path } from "./product.js";
import { describeFinding } from "./product_grid.js";
import { mark } from "./product_marks.js";
import { number, t } from "./texts.js";

const LIMIT = 500; // images in one request
const byId = (id) => document.getElementById(id);
let shown = ""; // the findings that are listed, as JSON

// Excludes every image of a finding; of copies the first one stays.
async function excludeAll(kind) {
  const found = [];
  let next = null;
  do {
    const query = new URLSearchParams({ finding: kind, excluded: false, limit: LIMIT, ...(next && { cursor: next }) });
    const page = await api(`${path}/images?${query}`);
    found.push(...page.images);
    next = page.next_cursor;
  } while (next);
  const others = (image) => image.findings.filter((one) => one.kind === kind).flatMap((one) => one.others);
  const leaving = found.filter((image) => !others(image).length || others(image).some((sha) => sha < image.sha256));
  await mark(leaving.map(({ sha256 }) => ({ image: sha256, excluded: true })), t("script.teach.excluded"));
}

function makeItem(kind, n) {
  const item = document.createElement("li");
  item.append(`${describeFinding(kind)}: ${number(n, 0)} `);
  if (passed.teaches) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = t("script.teach.exclude_all");
    button.addEventListener("click", () => excludeAll(kind).catch((error) => complain(byId("images-error"), error)));
    item.append(button);
  }
  return item;
}

// Only answers about the product alone have findings.
onProduct(({ findings }) => {
  const now = JSON.stringify(findings);
  if (!findings || now === shown) return;
  shown = now;
  byId("findings").replaceChildren(...Object.entries(findings).map(([kind, n]) => makeItem(kind, n)));
});
