// Pictures that do not come at once: where many are asked for, one may have to be asked for again.
const RETRIES = 6; // the last of them 25 seconds after the first

function ask(image, name, source) {
  image.removeAttribute(name);
  image.setAttribute(name, source);
}

// An <img>, or the <image> of an SVG. `told` hears "late" at every try that fails, "failed" when none is left, and
// "came" when one brings it.
export function retry(image, told = () => {}, times = 0) {
  const name = image instanceof SVGElement ? "href" : "src";
  const source = image.getAttribute(name);
  let heard = false;
  const again = () => {
    if (heard) return;
    heard = true;
    // In an SVG browsers draw a sign for it, large and in colours, over what is there.
    if (name === "href") image.setAttribute("visibility", "hidden");
    if (times >= RETRIES) {
      image.dataset.failed = "";
      told("failed");
      return;
    }
    told("late");
    setTimeout(() => {
      ask(image, name, source);
      retry(image, told, times + 1);
    }, 400 * 2 ** times);
  };
  const came = () => {
    image.removeAttribute("visibility");
    told("came");
  };
  image.addEventListener("error", again, { once: true });
  image.addEventListener("load", came, { once: true });
  if (times > 0) return;
  if (name === "href") lookAt(image, source, again);
  else if (image.complete && image.naturalWidth === 0) again(); // it failed before this script ran
}

// Whether the <image> of an SVG failed before this script ran, nothing tells; an <img> of the same picture does.
function lookAt(image, source, failed) {
  const same = new Image();
  same.addEventListener("load", () => image.setAttribute("href", source));
  same.addEventListener("error", failed);
  same.src = source;
}

// Those of which no try was left, now that the server is there again.
export function retryFailed(root) {
  for (const image of root.querySelectorAll("img[data-failed]")) {
    delete image.dataset.failed;
    ask(image, "src", image.getAttribute("src"));
    retry(image);
  }
}
