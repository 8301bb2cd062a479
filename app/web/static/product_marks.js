// Marks of images: good, a defect, excluded. Each can be undone.
import { api } from "./api.js";
import { announce } from "./base.js";
import { complain } from "./models.js";
import { addKind, path, refresh } from "./product.js";
import { focusOn, load, option, update } from "./product_grid.js";
import { selectNone, targets } from "./product_selection.js";
import { number, t } from "./texts.js";

const MAX_CHANGES = 500; // in one request
const byId = (id) => document.getElementById(id);
const undone = []; // labels before each change, the latest last

async function apply(changes) {
  const before = [];
  try {
    for (let i = 0; i < changes.length; i += MAX_CHANGES) {
      const answer = await api(`${path}/images`, { method: "PATCH", body: { changes: changes.slice(i, i + MAX_CHANGES) } });
      before.push(...answer.before);
      update(answer.images);
    }
  } catch (error) {
    complain(byId("images-error"), error);
  }
  refresh();
  return before;
}

function enableUndo() {
  byId("undo").disabled = undone.length === 0;
}

// Applies changes of labels, given as the API has them, and tells what was done.
export async function mark(changes, said) {
  byId("images-error").hidden = true;
  const before = await apply(changes);
  selectNone();
  if (!before.length) return;
  undone.push(before);
  enableUndo();
  announce(t("script.teach.marked", { n: number(before.length, 0), said }));
}

async function undo() {
  const before = undone.pop();
  if (!before) return;
  const changed = await apply(before);
  await load();
  if (document.activeElement === document.body) focusOn(option(before[0].image)); // its thumbnail was made anew
  enableUndo();
  announce(t("script.teach.undone", { n: number(changed.length, 0) }));
}

export const MARKS = {
  good: () => mark(targets().map(({ sha256 }) => ({ image: sha256, label: "good" })), t("verdict.good")),
  async defect() {
    const kind = byId("mark-kind").value.trim();
    const chosen = targets();
    try {
      if (kind && chosen.length) await addKind(kind);
    } catch (error) {
      return complain(byId("images-error"), error);
    }
    return mark(chosen.map(({ sha256 }) => ({ image: sha256, label: "defect", ...(kind && { kind }) })), kind || t("verdict.defect"));
  },
  exclude() {
    const chosen = targets();
    const excluded = !chosen.every((image) => image.excluded);
    return mark(chosen.map(({ sha256 }) => ({ image: sha256, excluded })), t(excluded ? "script.teach.excluded" : "script.teach.included"));
  },
};

byId("undo")?.addEventListener("click", undo);
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (!(event.ctrlKey || event.metaKey) || event.key !== "z" || typing || !undone.length) return;
  event.preventDefault();
  undo();
});
