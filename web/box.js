/**
 * The red box of Move Object, drawn by hand on the picture. Its value is JSON in fractions of the picture's sides.
 * What it takes to draw boxes by hand is exported, for boxes.js.
 */
import { app } from "../../scripts/app.js";
import { boxNumbers, inPixels } from "./box_numbers.js";
import { executionId, inputNamed, origin } from "./graph.js";
import { address, located, pictureOf } from "./pictures.js";
import { refusal } from "./refusal.js";
import { button, clamp, drag, follow, html, keys, mount, resize, set, svg, within } from "./shared.js";
import { t } from "./text.js";
import { zoom } from "./zoom.js";

/** @typedef {{x: number, y: number, w: number, h: number}} Box */
/** @typedef {{x: number, y: number}} Point */
/** @typedef {import("./types").GraphNode} GraphNode */

export const HEIGHT = 260; // pixels of the graph
export const WIDTH = 176; // of these across at least: the frontend adds as much as makes a new node 340 wide
const BARS = 64; // of these, below the stage
const LOWEST = 140; // pixels of the graph: the stage for a picture that is much wider than high, and
const HIGHEST = 420; // for one that is much higher than wide
const EXTREME = 2.5; // the longer side over the shorter, from which the stage follows the picture
const NEUTRAL = 1000; // sides of the canvas without a picture; fractions do not depend on it
const LINE = 0.004; // of the picture's shorter side, and
const THINNEST = 2; // pixels at least: the line that the node will draw
const GRIP = 9; // pixels of the graph, the side of a handle
const CLICK = 4; // pixels of the graph; a shorter drag draws no box
const STEP = 0.01; // of the picture's side, for the arrow keys
export const FIRST = { x: 0.35, y: 0.35, w: 0.3, h: 0.3 }; // the box that the keyboard begins with
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
/** @type {Record<string, Point>} */
export const ARROWS = {
  ArrowLeft: { x: -STEP, y: 0 },
  ArrowRight: { x: STEP, y: 0 },
  ArrowUp: { x: 0, y: -STEP },
  ArrowDown: { x: 0, y: STEP },
};

/** @param {number} number */
const rounded = (number) => Math.round(number * 1e5) / 1e5;

/** The box of what a stored value holds; null if it is not one. @param {any} stored @returns {Box | null} */
export function boxOf(stored) {
  const { x, y, w, h } = stored ?? {};
  return [x, y, w, h].every(Number.isFinite) ? { x, y, w, h } : null;
}

/** What a stored value holds; null for nothing drawn yet, and for text put in by hand, which the node refuses by name.
 * @param {string} text @returns {any} */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {string} text */
const read = (text) => boxOf(parsed(text));

/** As it is stored. @param {Box} box @returns {Box} */
export const trimmed = ({ x, y, w, h }) => ({ x: rounded(x), y: rounded(y), w: rounded(w), h: rounded(h) });

/** @param {Point} a @param {Point} b @returns {Box} */
export function between(a, b) {
  const [x0, x1] = [clamp(Math.min(a.x, b.x), 0, 1), clamp(Math.max(a.x, b.x), 0, 1)];
  const [y0, y1] = [clamp(Math.min(a.y, b.y), 0, 1), clamp(Math.max(a.y, b.y), 0, 1)];
  return { x: x0, y: y0, w: x1 - x0, h: y1 - y0 };
}

/** @param {Box} box @param {Point} by @returns {Box} */
export const moved = (box, by) => ({
  ...box,
  x: clamp(box.x + by.x, 0, 1 - box.w),
  y: clamp(box.y + by.y, 0, 1 - box.h),
});

/** The box with the edges that a handle names moved; an edge that crosses its opposite turns the box over.
 * @param {Box} box @param {string} handle @param {Point} by */
export function resized(box, handle, by) {
  const first = { x: box.x + (handle.includes("w") ? by.x : 0), y: box.y + (handle.includes("n") ? by.y : 0) };
  const last = {
    x: box.x + box.w + (handle.includes("e") ? by.x : 0),
    y: box.y + box.h + (handle.includes("s") ? by.y : 0),
  };
  return between(first, last);
}

/** @param {Box} box @param {Point} by @returns {Box} */
export const grown = (box, by) => ({
  ...box,
  w: clamp(box.w + by.x, STEP, 1 - box.x),
  h: clamp(box.h + by.y, STEP, 1 - box.y),
});

/** The handles around a box. */
export function handles() {
  const elements = HANDLES.map((handle) => svg("rect", { class: "joyimage-grip", "data-handle": handle }));

  /** @param {ReturnType<ReturnType<typeof easel>["scaled"]>} box @param {number} scale pixels of the picture in one of the graph */
  function place({ x, y, width, height }, scale) {
    const grip = GRIP * scale;
    elements.forEach((element, i) => {
      const handle = HANDLES[i];
      const along = handle.includes("w") ? 0 : handle.includes("e") ? 1 : 0.5;
      const down = handle.includes("n") ? 0 : handle.includes("s") ? 1 : 0.5;
      const [left, top] = [x + width * along - grip / 2, y + height * down - grip / 2];
      set(element, { x: left, y: top, width: grip, height: grip, rx: grip / 4, "stroke-width": grip / 7 });
    });
  }

  return { elements, place };
}

/**
 * A picture that boxes are drawn on, with its zoom: the picture of the node's input, or of its last run.
 * @param {GraphNode} node @param {GraphNode} host the node that shows it
 * @param {string} label @param {() => void} draw called when the picture or its place is another
 */
export function easel(node, host, label, draw) {
  const image = html("img", { alt: "", draggable: "false" });
  const frame = svg("rect", { class: "joyimage-frame" });
  const drawing = svg("svg", { preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true" }, frame);
  const sheet = html("div", { class: "joyimage-sheet" }, image, drawing);
  const attributes = { class: "joyimage-stage joyimage-box", tabindex: 0, role: "group", "aria-label": label };
  const stage = html("div", attributes, sheet);
  const element = html("div", {}, stage);
  const lens = zoom(stage, sheet, frame, draw);
  let size = { width: NEUTRAL, height: NEUTRAL };
  let known = false; // whether `size` is a picture's
  /** @type {string | undefined} */
  let ran; // the picture of the last run

  /** Take a picture's size, or none's. @param {{width: number, height: number} | null} to */
  function measure(to) {
    known = to !== null;
    size = to ?? { width: NEUTRAL, height: NEUTRAL };
    lens.show([app.rootGraph.id, executionId(node), image.src].join("\n"), size);
    const follows = clamp(Math.round((host.size[0] * size.height) / size.width), LOWEST, HIGHEST) + BARS;
    resize(host, element, known && extreme() ? follows : HEIGHT);
    draw();
  }

  const extreme = () => Math.max(size.width / size.height, size.height / size.width) >= EXTREME;

  /** In pixels of the picture. @param {Box} box */
  const scaled = ({ x, y, w, h }) => ({
    x: x * size.width,
    y: y * size.height,
    width: w * size.width,
    height: h * size.height,
  });

  /** Pixels of the picture in a pixel of the graph. */
  const scale = () =>
    sheet.clientWidth && Math.max(size.width / sheet.clientWidth, size.height / sheet.clientHeight);

  /** Whether a drag by so much, in fractions, is more than a click. @param {Point} by */
  const far = (by) => Math.hypot(by.x * size.width, by.y * size.height) > CLICK * scale();

  function place() {
    lens.place();
    set(drawing, { viewBox: `0 0 ${size.width} ${size.height}` });
    set(frame, size);
  }

  /** @param {Box} box */
  const reveal = ({ x, y, w, h }) => lens.reveal({ x: x + w / 2, y: y + h / 2 });

  /** The keys of the zoom. @param {string} key @returns {boolean} whether it was one */
  function zoomed(key) {
    if (key === "+") lens.larger();
    else if (key === "-") lens.smaller();
    else if (key === "0") lens.fit();
    else return false;
    return true;
  }

  /** @param {Box} box */
  function describe(box) {
    if (!known) return `${(box.w * 100).toFixed(1)} × ${(box.h * 100).toFixed(1)} %`;
    const { x, y, w, h } = inPixels(box, size);
    return `${w} × ${h} px · ${x}, ${y}`;
  }

  /** What the picture depends on. */
  function situation() {
    const source = origin(node, inputNamed(node, "image"));
    /** @param {string} side */
    const side = (side) => source?.node.widgets?.find((widget) => widget.name === side)?.value;
    const [width, height] = [side("width"), side("height")];
    return {
      picture: pictureOf(source) ?? (source ? ran : undefined),
      blank: width > 0 && height > 0 ? { width, height } : null, // the source says how large its pictures will be
    };
  }

  /** @param {ReturnType<typeof situation>} now */
  function show({ picture, blank }) {
    set(image, { src: picture });
    if (picture) draw();
    else measure(blank);
  }

  image.addEventListener("load", () => measure({ width: image.naturalWidth, height: image.naturalHeight }));
  image.addEventListener("error", () => measure(null));
  new ResizeObserver(draw).observe(stage);
  const executed = node.onExecuted;
  node.onExecuted = function (output) {
    executed?.call(this, output);
    if (output?.source?.length) ran = address(output.source[0]);
  };

  /** The picture's size, if it is known. */
  const measured = () => (known ? size : null);
  const narrow = () => extreme() && lens.fits();
  return {
    ...{ element, stage, drawing, frame, lens, place, scaled, scale, far, reveal, zoomed, describe, situation, show },
    ...{ measured, narrow, size: () => size },
  };
}

/**
 * @param {GraphNode} node
 * @param {string} name
 * @param {GraphNode} [host] a node around it that shows the box as well; the value stays inside
 */
export function boxWidget(node, name, host = node) {
  const board = easel(node, host, t("box"), () => draw());
  const { element, stage, drawing, frame, lens, scaled, scale } = board;
  const status = html("span", { class: "joyimage-status", "aria-live": "polite" });
  const spoken = html("span", { class: "joyimage-spoken", "aria-live": "polite" });
  const clear = button(t("clear"), () => change(null));
  const numbers = boxNumbers(FIRST, (box) => (change(box), board.reveal(box)));
  element.append(html("div", { class: "joyimage-bar joyimage-remarks" }, status, spoken, lens.element));
  element.append(html("div", { class: "joyimage-bar" }, numbers.element, clear));

  const veil = svg("path", { class: "joyimage-veil", "fill-rule": "evenodd" });
  const outline = svg("rect", { class: "joyimage-outline" });
  const body = svg("rect", { class: "joyimage-body" });
  const ghost = svg("rect", { class: "joyimage-ghost" }, svg("title", {}, t("box_ghost")));
  const grips = handles();
  drawing.append(veil, ghost, outline, body, ...grips.elements);

  let text = "";
  /** @type {Box | null} */
  let found = null; // the object that Locate found on the picture
  let replaced = false; // by a connected mask or bbox
  let refused = ""; // why the server did not run with the box

  /** @param {Box | null} box */
  function change(box) {
    store(box ? JSON.stringify(trimmed(box)) : "");
  }

  /** @param {string} to */
  function store(to) {
    text = to;
    refused = "";
    const inside = inner();
    if (inside) inside.value = to;
    draw();
  }

  /** The widget that keeps the value, if that is not this one. */
  const inner = () => (host === node ? undefined : node.widgets?.find((widget) => widget.name === name));

  function draw() {
    const { width, height } = board.size();
    board.place();
    const box = read(text);
    set(ghost, found ? scaled(found) : { width: 0, height: 0 });
    element.classList.toggle("joyimage-none", !box);
    set(clear, { disabled: !box });
    remark(box);
    numbers.show(box, board.measured());
    if (!box) return;
    const { x, y, width: w, height: h } = scaled(box);
    const line = Math.min(Math.max(THINNEST, Math.round(LINE * Math.min(width, height))), w, h);
    set(outline, { x: x + line / 2, y: y + line / 2, width: w - line, height: h - line, "stroke-width": line });
    set(body, scaled(box));
    set(veil, { d: `M0 0H${width}V${height}H0ZM${x} ${y}h${w}v${h}h${-w}Z` });
    grips.place(scaled(box), scale());
  }

  /** Say what is to be said of the box. @param {Box | null} box */
  function remark(box) {
    const hint = !found && board.narrow() ? "box_extreme" : found ? "box_ghost" : "box_empty";
    const known = box ? about(box) : t(hint);
    status.textContent = refused || (replaced ? t("box_replaced") : known);
    set(status, { title: status.textContent });
    status.classList.toggle("joyimage-wrong", Boolean(refused));
    spoken.textContent = box ? board.describe(box) : t("box_none");
  }

  /** @param {Box} box */
  function about(box) {
    const size = board.measured();
    return size ? `${t("picture")} ${size.width} × ${size.height} px` : board.describe(box);
  }

  drag(stage, (press) => {
    stage.focus({ preventScroll: true });
    const [start, before, kept] = [within(press, frame), read(text), text];
    const handle = /** @type {Element} */ (press.target).getAttribute("data-handle");
    const grabbed = press.target === body;
    const taken = press.target === ghost ? found : null;
    return {
      move(event) {
        const here = within(event, frame);
        const by = { x: here.x - start.x, y: here.y - start.y };
        if (before && handle) change(resized(before, handle, by));
        else if (before && grabbed) change(moved(before, by));
        else if (board.far(by)) change(taken ? moved(taken, by) : between(start, here));
      },
      cancel: () => store(kept),
    };
  });

  keys(stage, (key, { shiftKey }) => {
    const box = read(text);
    const by = ARROWS[key];
    if (board.zoomed(key)) return true;
    if (key === "Delete" || key === "Backspace") change(null);
    else if (by && !box) change(FIRST);
    else if (by && box) change(shiftKey ? grown(box, by) : moved(box, by));
    else return false;
    const now = read(text);
    if (by && now) board.reveal(now);
    return true;
  });

  follow(host, situation, ({ said, stored, picture, blank, ...now }) => {
    text = stored;
    found = read(said.slice(said.lastIndexOf("{")));
    ({ replaced, refused } = now);
    element.classList.toggle("joyimage-replaced", replaced);
    board.show({ picture, blank });
  });

  /** What the drawing depends on besides the value. */
  function situation() {
    const stored = inner()?.value ?? text;
    return {
      ...board.situation(),
      said: located(origin(node, inputNamed(node, "image"))),
      stored,
      refused: refusal(node, name, stored),
      replaced: ["mask", "bbox"].some((input) => origin(node, inputNamed(node, input)) !== null),
    };
  }

  const value = {
    getValue: () => text,
    /** @param {string} [stored] */
    setValue(stored) {
      text = stored ?? "";
      draw();
    },
  };
  return mount(host, name, element, HEIGHT, host === node ? value : undefined, WIDTH);
}
