// Images that fail to load: under load, an image may have to be requested again.
const RETRIES = 6; // the last one 25 seconds after the first

function request(image, name, source) {
  image.removeAttribute(name);
  image.setAttribute(name, source);
}

// For an <img> or the <image> of an SVG. `report` is called with "late" after each failed attempt, "failed" after the
// last one, and "came" when the image has loaded.
export function retry(image, report = () => {}, times = 0) {
  const name = image instanceof SVGElement ? "href" : "src";
  const source = image.getAttribute(name);
  let heard = false;
  const again = () => {
    if (heard) return;
    heard = true;
    // Browsers draw a large coloured icon for a failed image of an SVG.
    if (name === "href") image.setAttribute("visibility", "hidden");
    if (times >= RETRIES) {
      image.dataset.failed = "";
      report("failed");
      return;
    }
    report("late");
    setTimeout(() => {
      request(image, name, source);
      retry(image, report, times + 1);
    }, 400 * 2 ** times);
  };
  const came = () => {
    image.removeAttribute("visibility");
    report("came");
  };
  image.addEventListener("error", again, { once: true });
  image.addEventListener("load", came, { once: true });
  if (times > 0) return;
  if (name === "href") lookAt(image, source, again);
  else if (image.complete && image.naturalWidth === 0) again(); // failed before this script ran
}

// Nothing tells if the <image> of an SVG failed before this script ran; an <img> of the same address does.
function lookAt(image, source, failed) {
  const same = new Image();
  same.addEventListener("load", () => image.setAttribute("href", source));
  same.addEventListener("error", failed);
  same.src = source;
}

// Retries images that had given up, after the server is back.
export function retryFailed(root) {
  for (const image of root.querySelectorAll("img[data-failed]")) {
    delete image.dataset.failed;
    request(image, "src", image.getAttribute("src"));
    retry(image);
  }
}
