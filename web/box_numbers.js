/** The red box in pixels: four fields, which show it and set it. */
import { clamp, html, remember, set } from "./shared.js";
import { t } from "./text.js";

/** @typedef {import("./box.js").Box} Box */
/** @typedef {{width: number, height: number}} Size */

const SIDES = /** @type {const} */ (["x", "y", "w", "h"]);
const OURS = ["pointerdown", "pointermove", "copy", "cut", "paste"]; // what the graph would take for its own

/** A box in whole pixels, rounded edge by edge as the node does. @param {Box} box @param {Size} size @returns {Box} */
export function inPixels({ x, y, w, h }, { width, height }) {
  const [left, top] = [Math.round(x * width), Math.round(y * height)];
  return { x: left, y: top, w: Math.round((x + w) * width) - left, h: Math.round((y + h) * height) - top };
}

/** The box with one number set, moved or cut so that it stays in the picture.
 * @param {Box} box in pixels @param {"x" | "y" | "w" | "h"} side @param {number} number @param {Size} size
 * @returns {Box} in fractions */
function withNumber(box, side, number, { width, height }) {
  const most = { x: width - box.w, y: height - box.h, w: width - box.x, h: height - box.y };
  const least = side === "w" || side === "h" ? 1 : 0;
  const { x, y, w, h } = Object.assign({ ...box }, { [side]: clamp(Math.round(number), least, most[side]) });
  return { x: x / width, y: y / height, w: w / width, h: h / height };
}

/** What was typed, also with full-width digits; NaN for no number. @param {string} text */
const typed = (text) => (text.trim() ? Number(text.normalize("NFKC").replace(",", ".")) : NaN);

/**
 * @param {Box} first where a box begins of which no number is known
 * @param {(box: Box) => void} change
 */
export function boxNumbers(first, change) {
  let size = { width: 1, height: 1 };
  /** @type {Box | null} */
  let box = null; // in pixels
  const fields = SIDES.map((side) => {
    const label = t(`box_${side}`);
    const field = html("input", { inputmode: "numeric", autocomplete: "off", "aria-label": label, title: label });
    field.addEventListener("focus", () => field.select());
    field.addEventListener("blur", () => commit(side, field));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        commit(side, field);
        field.select();
      } else if (event.key === "Escape") {
        field.value = shown(side);
        field.blur();
      }
      if (!(event.ctrlKey || event.metaKey)) event.stopPropagation();
    });
    for (const name of OURS) field.addEventListener(name, (event) => event.stopPropagation());
    return field;
  });
  const labels = SIDES.map((side, i) => html("label", { class: "joyimage-number", "data-side": side }, side, fields[i]));
  const element = html("div", { class: "joyimage-numbers", role: "group", "aria-label": t("box_numbers") }, ...labels);

  /** @param {keyof Box} side */
  const shown = (side) => (box ? String(box[side]) : "");

  /** @param {keyof Box} side @param {HTMLInputElement} field */
  function commit(side, field) {
    const number = typed(field.value);
    const now = box ?? inPixels(first, size);
    if (field.value !== shown(side) && Number.isFinite(number)) {
      change(withNumber(now, side, number, size));
      remember();
    }
    field.value = shown(side);
  }

  /** @param {Box | null} to in fractions @param {Size | null} of the picture's, if it is known */
  function show(to, of) {
    set(element, { hidden: !of });
    if (!of) return;
    const before = SIDES.map(shown);
    size = of;
    box = to && inPixels(to, of);
    fields.forEach((field, i) => {
      const typing = field === document.activeElement && field.value !== before[i];
      if (!typing) field.value = shown(SIDES[i]);
    });
  }

  return { element, show };
}
