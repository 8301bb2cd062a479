// A choice from a list. With mouse or finger it is made at once. The arrow keys pass over every line of the list, so
// with the keyboard it is made by Enter, or by a button that is in sight from then on.
const KEPT = "flowgauge.focus";

function nameOf(select) {
  return select.id || select.name;
}

// The page that a choice leads to has the focus where it was.
function keepFocus(select) {
  try {
    sessionStorage.setItem(KEPT, nameOf(select));
  } catch {
    // a browser that keeps nothing
  }
}

function giveFocus(select) {
  try {
    if (sessionStorage.getItem(KEPT) !== nameOf(select)) return;
    sessionStorage.removeItem(KEPT);
    select.focus();
  } catch {
    // see above
  }
}

const changed = new WeakSet(); // forms, and lists without one, of which a choice is not made yet

// `made` is called when the choice is made, not whenever the list shows another line; it gives false where that leads
// nowhere.
export function onChoice(select, button, made) {
  const whole = select.form ?? select;
  let byKeys = false;
  let last = false; // whether it was this one of the form that was changed
  const make = () => {
    changed.delete(whole);
    if (made() !== false && byKeys) keepFocus(select);
  };
  select.addEventListener("pointerdown", () => (byKeys = false));
  select.addEventListener("keydown", (event) => {
    byKeys = true;
    if (event.key !== "Enter" || !changed.has(whole)) return;
    event.preventDefault();
    make();
  });
  select.addEventListener("change", () => {
    changed.add(whole);
    last = true;
    if (!byKeys) return make();
    button.hidden = false;
    button.classList.remove("without-script");
  });
  if (button.type === "button") button.addEventListener("click", make);
  select.form?.addEventListener("submit", () => last && keepFocus(select));
  giveFocus(select);
}
