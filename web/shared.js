/**
 * What the widgets share: elements, pointer drags that leave the graph alone, choices, and the way to the host.
 *
 * A widget here is an ordinary element on a node, which both of the frontend's renderers show. It is drawn in SVG and
 * CSS, so that it stays sharp at every zoom and follows the theme without redrawing.
 */
import { app } from "../../scripts/app.js";
import { t } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const LAID_OUT = 60; // milliseconds after which the new renderer has given a node the size that it takes
const MARGINS = 20; // pixels of the graph that the classic renderer leaves free above and below a widget, together
const FOLLOW = 100; // milliseconds between two looks at what a widget depends on

/**
 * @template {Element} E
 * @param {E} node
 * @param {Record<string, unknown>} attributes null, undefined and false remove one
 */
export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string)} children
 */
export function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  set(node, attributes).append(...children);
  return node;
}

/**
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string)} children
 */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  set(node, attributes).append(...children);
  return node;
}

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Where a pointer is in an element, from 0 to 1 each way (outside beyond that), at any zoom of the graph.
 * @param {MouseEvent} event @param {Element} element */
export function within(event, element) {
  const { left, top, width, height } = element.getBoundingClientRect();
  return { x: (event.clientX - left) / width, y: (event.clientY - top) / height };
}

/**
 * Follow the main button from press to release, or to Escape.
 * @param {HTMLElement} element
 * @param {(event: PointerEvent) => {move: (event: PointerEvent) => void, cancel: () => void, end?: () => void} | null} begin
 *   called at the press; null if nothing is to be dragged there
 */
export function drag(element, begin) {
  element.addEventListener("pointerdown", (press) => {
    if (press.button !== 0) return; // the other buttons move the graph
    press.stopPropagation();
    const session = begin(press);
    if (!session) return;
    const watch = new AbortController();
    const options = { signal: watch.signal };
    /** @param {() => void} [finish] */
    const stop = (finish) => {
      watch.abort();
      finish?.();
      remember();
    };
    element.setPointerCapture(press.pointerId);
    element.addEventListener(
      "pointermove",
      (event) => {
        event.stopPropagation();
        session.move(event);
      },
      options,
    );
    element.addEventListener("pointerup", (event) => (event.stopPropagation(), stop(session.end)), options);
    element.addEventListener("pointercancel", () => stop(session.cancel), options);
    window.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape") return;
        event.stopImmediatePropagation();
        stop(session.cancel);
      },
      { ...options, capture: true },
    );
  });
}

/**
 * Handle keys by name ("ArrowLeft", "Delete") and keep them from the graph, which has its own use for them.
 * @param {GlobalEventHandlers} element
 * @param {(key: string, event: KeyboardEvent) => boolean} handle whether the key was of use
 */
export function keys(element, handle) {
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !handle(event.key, event)) return;
    event.preventDefault();
    event.stopPropagation();
    remember();
  });
}

/** Shade a view whose values connected nodes decide, and say which. @param {HTMLElement} element @param {string[]} names */
export const shade = (element, names) =>
  set(element, { inert: names.length > 0, "data-connected": names.length ? `${t("connected")} ${names.join(", ")}` : null });

/** @param {string} text @param {() => void} act @param {Record<string, unknown>} [attributes] */
export function button(text, act, attributes = {}) {
  const node = html("button", { type: "button", class: "joyimage-chip", ...attributes }, text);
  node.addEventListener("click", () => {
    act();
    remember();
  });
  return node;
}

/**
 * A row of buttons that set something; `mark` shows which of them holds.
 * @template T
 * @param {string} label
 * @param {[string, T][]} options text and value of each
 * @param {(value: T) => void} choose
 */
export function choices(label, options, choose) {
  const buttons = options.map(([text, value]) => button(text, () => choose(value)));
  const element = html("div", { class: "joyimage-choices", role: "group", "aria-label": label }, ...buttons);
  /** @param {(value: T) => boolean} holds */
  const mark = (holds) => options.forEach(([, value], i) => set(buttons[i], { "aria-pressed": String(holds(value)) }));
  return { element, mark };
}

/** Make the change so far one step that undo takes back. */
export function remember() {
  app.extensionManager.workflow.activeWorkflow?.changeTracker?.captureCanvasState();
}

/**
 * Put an element on a node as a widget. With `stored` it has a value, which is saved and queued; without, it is a view.
 * @param {import("./types").GraphNode} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {number} height the least, in pixels of the graph
 * @param {{getValue: () => string, setValue: (value: string) => void}} [stored]
 * @param {number} [width] the least, in pixels of the graph, for a new node and for its corner
 */
export function mount(node, name, element, height, stored, width = 0) {
  element.classList.add("joyimage");
  element.style.minHeight = `${height}px`; // the one of the two that the new renderer heeds
  const socketless = Boolean(stored); // one that is linked, as by promotion to a subgraph's node, nobody can draw on
  const least = () => parseFloat(element.style.minHeight) + MARGINS;
  const options = { hideOnZoom: false, serialize: Boolean(stored), socketless, getMinHeight: least };
  const widget = node.addDOMWidget(name, "JOYIMAGE", element, { ...options, ...stored });
  widget.serialize = Boolean(stored);
  const layout = widget.computeLayoutSize;
  widget.computeLayoutSize = (node) => ({ ...layout.call(widget, node), minWidth: width });
  passOn(element);
  repeat(node, () => takePlace(node, element));
  return widget;
}

/** By how much the new renderer makes a node taller than it was told to be, once it has laid it out.
 * @type {WeakMap<HTMLElement, number>} */
const added = new WeakMap();

/** Give a mounted element another least height. The node grows to it, and shrinks if it was no taller than it had to be.
 * @param {import("./types").GraphNode} node @param {HTMLElement} element @param {number} height in pixels of the graph */
export function resize(node, element, height) {
  if (parseFloat(element.style.minHeight) === height) return;
  const above = () => node.size[1] - node.computeSize()[1];
  const snug = above() <= Math.max(MARGINS, added.get(element) ?? 0);
  element.style.minHeight = `${height}px`;
  const least = node.computeSize()[1];
  if (snug || node.size[1] < least) {
    node.setSize([node.size[0], least]);
    window.setTimeout(() => added.set(element, above()), LAID_OUT);
  }
  app.canvas.setDirty(true, true);
}

/** Undo makes all nodes anew, and the new renderer goes on showing the elements of the old: put ours in its place.
 * @param {import("./types").GraphNode} node @param {HTMLElement} element */
function takePlace(node, element) {
  element.dataset.node = String(node.id);
  if (element.isConnected || node.graph !== app.canvas.graph) return;
  document.querySelector(`.joyimage[data-node="${element.dataset.node}"]`)?.replaceWith(element);
}

/** The wheel and the middle button belong to the graph, which lies below the element in the classic renderer.
 * @param {HTMLElement} element */
function passOn(element) {
  const classic = () => element.closest(".dom-widget") !== null;
  element.addEventListener(
    "wheel",
    (event) => {
      if (!classic()) return;
      event.preventDefault();
      app.canvas.processMouseWheel(event);
    },
    { passive: false },
  );
  /** @type {["pointerdown" | "pointermove" | "pointerup", (event: PointerEvent) => void, (event: PointerEvent) => boolean][]} */
  const pans = [
    ["pointerdown", (event) => app.canvas.processMouseDown(event), (event) => event.button === 1],
    ["pointermove", (event) => app.canvas.processMouseMove(event), (event) => Boolean(event.buttons & 4)],
    ["pointerup", (event) => app.canvas.processMouseUp(event), (event) => event.button === 1],
  ];
  for (const [name, act, meant] of pans) {
    element.addEventListener(name, (event) => classic() && meant(event) && act(event));
  }
}

/**
 * Draw now and whenever what is read changes, by whatever way: another widget, undo, a loaded file, a new picture.
 * @template T
 * @param {import("./types").GraphNode} node
 * @param {() => T} read plain data
 * @param {(data: T) => void} draw
 */
export function follow(node, read, draw) {
  let last = "";
  const look = () => {
    const data = read();
    const now = JSON.stringify(data);
    if (now === last) return;
    last = now;
    draw(data);
  };
  repeat(node, look);
  return look;
}

/** Do something over and over while a node is in a graph: some are made only to be copied from.
 * @param {import("./types").GraphNode} node @param {() => void} act */
function repeat(node, act) {
  let timer = 0;
  const { onAdded, onRemoved } = node;
  node.onAdded = function (graph) {
    timer = window.setInterval(act, FOLLOW);
    onAdded?.call(this, graph);
  };
  node.onRemoved = function () {
    window.clearInterval(timer);
    onRemoved?.call(this);
  };
}
