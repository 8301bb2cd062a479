// The result of a comparison: two versions on the same images, and the images on which they decide differently.
import { SYMBOLS } from "./cards.js";
import { activate, passed } from "./models.js";
import { path, product, refresh } from "./product.js";
import { number, percent, t } from "./texts.js";

const MAX_IMAGES = 60;
const template = document.getElementById("comparison");

function rate(count, total, share) {
  if (share === null) return "–";
  return t("script.teach.compare.rate", { n: number(count, 0), total: number(total, 0), rate: percent(share) });
}

function decisionOf({ decision }) {
  return `${SYMBOLS[decision]} ${t(`decision.${decision}`)}`;
}

function makeImage({ image, kind, before, after }) {
  const item = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { href: `${path}/images/${image}/source`, target: "_blank", rel: "noopener" });
  const picture = Object.assign(document.createElement("img"), { src: `${path}/images/${image}/thumbnail`, alt: "", loading: "lazy" });
  link.append(picture, `${decisionOf(before)} → ${decisionOf(after)}`, kind ? ` (${kind})` : "");
  item.append(link);
  return item;
}

export function makeComparison({ before, after, good, defective, changed, images }) {
  const made = template.content.firstElementChild.cloneNode(true);
  for (const [side, one] of Object.entries({ before, after })) {
    const texts = {
      version: one.version,
      overkill: rate(one.rejected_good, good, one.overkill),
      escape: rate(one.passed_defective, defective, one.escape),
      auroc: one.image_auroc === null ? "–" : number(one.image_auroc, 3),
    };
    for (const [name, text] of Object.entries(texts)) made.querySelector(`[data-${side}="${name}"]`).textContent = text;
  }
  made.querySelector('[data-field="changed"]').textContent = t("script.teach.compare.changed", { n: number(changed, 0) });
  made.querySelector("ul").append(...images.slice(0, MAX_IMAGES).map(makeImage));
  const button = made.querySelector("button");
  if (passed.activates && product.active !== after.version) {
    button.hidden = false;
    button.addEventListener("click", () => activate(after.version, button, () => ((button.hidden = true), refresh())));
  }
  return made;
}
