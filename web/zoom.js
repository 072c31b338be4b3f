/** Zoom and pan of the picture on a stage, so that small things and long, narrow pictures can be worked on. */
import { button, clamp, html, set, within } from "./shared.js";
import { t } from "./text.js";

/** @typedef {{x: number, y: number}} Point in fractions of the picture's sides */
/** @typedef {{scale: number, x: number, y: number}} View times the size that fits, and the point in the middle */

const FIT = { scale: 1, x: 0.5, y: 0.5 };
const STEP = 1.5; // times, with a button or a key
const MOST = 8; // times the size that fits, or
const BEYOND = 4; // times the size that fills the stage, if that is more
const SPEED = 0.002; // of the wheel, in powers of e per unit
const OTHERS = "input, textarea, select, button:focus-visible, [contenteditable]"; // which the space key belongs to

/** @type {Map<string, View>} the last view of each node's picture, as undo makes the widgets anew */
const views = new Map();

/**
 * @param {HTMLElement} stage
 * @param {HTMLElement} sheet on the stage; the picture is fitted into it
 * @param {Element} frame the picture's outline on the sheet
 * @param {() => void} changed
 */
export function zoom(stage, sheet, frame, changed) {
  let view = FIT;
  let name = "";
  let picture = { width: 1, height: 1 };

  const out = button("−", smaller, { "aria-label": t("zoom_out"), title: t("zoom_out") });
  const into = button("+", larger, { "aria-label": t("zoom_in"), title: t("zoom_in") });
  const fit = button(t("zoom_fit"), () => look(FIT), { "aria-label": t("zoom_whole"), title: t("zoom_whole") });
  const element = html("div", { class: "joyimage-zoom", role: "group", "aria-label": t("zoom") }, out, into, fit);

  function larger() {
    by(STEP);
  }

  function smaller() {
    by(1 / STEP);
  }

  /** The shares of the stage's sides that the picture fills when it fits. */
  function shares() {
    const [width, height] = [stage.clientWidth || 1, stage.clientHeight || 1];
    const fit = Math.min(width / picture.width, height / picture.height);
    return { x: (picture.width * fit) / width, y: (picture.height * fit) / height };
  }

  const most = () => Math.max(MOST, BEYOND / Math.min(shares().x, shares().y));

  /** No further than the picture's edges. @param {number} middle @param {number} extent of the picture, in stages */
  const limited = (middle, extent) => (extent > 1 ? clamp(middle, 0.5 / extent, 1 - 0.5 / extent) : 0.5);

  /** @param {View} to */
  function look(to) {
    const [share, scale] = [shares(), clamp(to.scale, 1, most())];
    view = { scale, x: limited(to.x, share.x * scale), y: limited(to.y, share.y * scale) };
    views.set(name, view);
    changed();
  }

  /** @param {number} factor @param {Point} [at] the point that stays where it is */
  function by(factor, at = view) {
    const scale = clamp(view.scale * factor, 1, most());
    const still = view.scale / scale;
    look({ scale, x: at.x - (at.x - view.x) * still, y: at.y - (at.y - view.y) * still });
  }

  /** Put the sheet where the view says. */
  function place() {
    const [{ x, y }, scale] = [shares(), view.scale];
    const left = 0.5 - scale / 2 - (view.x - 0.5) * x * scale;
    const top = 0.5 - scale / 2 - (view.y - 0.5) * y * scale;
    const side = `${scale * 100}%`;
    Object.assign(sheet.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: side, height: side });
    stage.classList.toggle("joyimage-zoomed", scale > 1);
    set(out, { disabled: scale <= 1 });
    set(fit, { disabled: scale <= 1 });
    set(into, { disabled: scale >= most() });
  }

  /** @param {string} of the node's and its picture's name @param {{width: number, height: number}} size */
  function show(of, size) {
    picture = size;
    if (of !== name) view = views.get(of) ?? FIT;
    name = of;
  }

  /** Bring a point into view. @param {Point} point */
  function reveal({ x, y }) {
    const [share, half] = [shares(), 0.5 / view.scale];
    if (Math.abs(x - view.x) > half / share.x || Math.abs(y - view.y) > half / share.y) look({ ...view, x, y });
  }

  /** @param {PointerEvent} press */
  function pan(press) {
    const { width, height } = frame.getBoundingClientRect();
    const from = view;
    stage.setPointerCapture(press.pointerId);
    /** @param {PointerEvent} event */
    return ({ clientX, clientY }) =>
      look({ ...from, x: from.x - (clientX - press.clientX) / width, y: from.y - (clientY - press.clientY) / height });
  }

  gestures(stage, { zoomed: () => view.scale > 1, pan, wheel: (event) => by(Math.exp(-event.deltaY * SPEED), within(event, frame)) });
  return { element, place, show, reveal, larger, smaller, fit: () => look(FIT), fits: () => view.scale === 1 };
}

/**
 * Ctrl and wheel, and drags with the middle button or the space key. They are taken before the page has them, which
 * forwards such things to the graph; while nothing is zoomed, drags are left to it.
 * @param {HTMLElement} stage
 * @param {{zoomed: () => boolean, pan: (press: PointerEvent) => (event: PointerEvent) => void, wheel: (event: WheelEvent) => void}} act
 */
function gestures(stage, { zoomed, pan, wheel }) {
  let space = false;
  /** @type {((event: PointerEvent) => void) | null} */
  let panning = null;
  let watch = new AbortController();

  /** @param {Event} event */
  const take = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  /** @param {boolean} held */
  const hold = (held) => {
    space = held;
    stage.classList.toggle("joyimage-pannable", held);
  };
  /** @type {Record<string, (event: any) => void>} */
  const hear = {
    wheel(/** @type {WheelEvent} */ event) {
      if (!(event.ctrlKey || event.metaKey)) return;
      take(event);
      wheel(event);
    },
    keydown(/** @type {KeyboardEvent} */ event) {
      if (event.key !== " " || !zoomed() || /** @type {Element} */ (event.target).closest?.(OTHERS)) return;
      take(event);
      hold(true);
    },
    keyup(/** @type {KeyboardEvent} */ event) {
      if (event.key !== " " || !space) return;
      take(event);
      hold(false);
    },
    pointerdown(/** @type {PointerEvent} */ event) {
      if (!zoomed() || !(event.button === 1 || (event.button === 0 && space))) return;
      take(event);
      panning = pan(event);
    },
    pointermove(/** @type {PointerEvent} */ event) {
      if (!panning) return;
      take(event);
      panning(event);
    },
    pointerup(/** @type {PointerEvent} */ event) {
      if (panning) take(event);
      panning = null;
    },
  };

  function leave() {
    watch.abort();
    panning = null;
    hold(false);
  }
  stage.addEventListener("pointerleave", leave);
  stage.addEventListener("pointerenter", () => {
    watch.abort();
    watch = new AbortController();
    const options = { capture: true, passive: false, signal: watch.signal };
    for (const [name, act] of Object.entries(hear)) {
      // No event tells that the stage went from under the pointer, as undo lets it.
      const heard = (/** @type {Event} */ event) => (stage.matches(":hover") || panning ? act(event) : leave());
      window.addEventListener(name, heard, options);
    }
  });
}
