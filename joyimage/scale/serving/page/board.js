/** A picture with boxes on it, one of which can be drawn by hand, by keys or by numbers. */
import { clamp, fit, html, svg } from "./elements.js";

/** @typedef {[number, number, number, number]} Box left, top, right, bottom in pixels of the picture */

const STEP = 0.02; // of the picture's shorter side, for a key
const FIRST = 0.3; // of the picture's sides: where a box that is made by a key begins
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * @param {HTMLElement} stage
 * @param {(box: Box | null) => void} changed
 */
export function board(stage, changed) {
  const image = html("img", { alt: "", draggable: false });
  const layer = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  stage.classList.add("board");
  stage.append(image, layer);
  fit(stage, image);
  /** @type {Box | null} */
  let box = null;
  let drawing = false; // whether a box can be drawn at all

  const size = () => ({ width: image.naturalWidth || 1, height: image.naturalHeight || 1 });

  /** @param {Box[]} boxes */
  function mark(boxes) {
    const { width, height } = size();
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const outlines = boxes.map(([x, y, right, bottom]) => svg("rect", { x, y, width: right - x, height: bottom - y }));
    layer.replaceChildren(...outlines);
  }

  /** In whole pixels and on the picture; null for nothing. @param {Box | null} to */
  function put(to) {
    const { width, height } = size();
    box = to;
    if (to) {
      const [x0, x1] = [to[0], to[2]].map((x) => clamp(Math.round(x), 0, width)).sort((a, b) => a - b);
      const [y0, y1] = [to[1], to[3]].map((y) => clamp(Math.round(y), 0, height)).sort((a, b) => a - b);
      box = x0 < x1 && y0 < y1 ? [x0, y0, x1, y1] : null;
    }
    mark(box ? [box] : []);
    changed(box);
  }

  /** @param {PointerEvent} event */
  function at(event) {
    const { left, top, width, height } = image.getBoundingClientRect();
    return [((event.clientX - left) / width) * size().width, ((event.clientY - top) / height) * size().height];
  }

  stage.addEventListener("pointerdown", (press) => {
    if (!drawing || press.button !== 0) return;
    press.preventDefault();
    stage.focus();
    stage.setPointerCapture(press.pointerId);
    const [x, y] = at(press);
    const watch = new AbortController();
    stage.addEventListener(
      "pointermove",
      (event) => {
        const [right, bottom] = at(event);
        put([x, y, right, bottom]);
      },
      { signal: watch.signal },
    );
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => watch.abort(), { once: true });
  });

  stage.addEventListener("keydown", (event) => {
    if (!drawing || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (event.key === "Delete" || event.key === "Backspace") put(null);
    else if (arrow) put(nudged(arrow, event.shiftKey));
    else return;
    event.preventDefault();
  });

  /** The box moved by a step, or with shift its right and lower edges. @param {[number, number]} arrow @param {boolean} grow */
  function nudged([x, y], grow) {
    const { width, height } = size();
    if (!box) return /** @type {Box} */ ([width * FIRST, height * FIRST, width * (1 - FIRST), height * (1 - FIRST)]);
    const step = Math.max(1, Math.round(STEP * Math.min(width, height)));
    const [left, top, right, bottom] = box;
    const by = [clamp(x * step, grow ? 1 - right + left : -left, width - right), clamp(y * step, grow ? 1 - bottom + top : -top, height - bottom)];
    return /** @type {Box} */ (grow ? [left, top, right + by[0], bottom + by[1]] : [left + by[0], top + by[1], right + by[0], bottom + by[1]]);
  }

  return {
    image,
    size,
    put,
    mark,
    box: () => box,
    /** @param {boolean} can */
    draw(can) {
      drawing = can;
      stage.classList.toggle("drawn", can);
      stage.ariaLabel = can ? "Picture: drag to draw the red box; arrow keys move it, with shift they resize it" : "Picture";
      mark(can && box ? [box] : []);
    },
  };
}
