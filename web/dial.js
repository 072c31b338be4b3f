/** The dial of Rotate Object: the eight sides around an object. The node's view is what it shows and sets. */
import { assign, decided, value } from "./graph.js";
import { subject } from "./pictures.js";
import { follow, html, keys, mount, remember, set, shade, svg } from "./shared.js";
import { t } from "./text.js";

const HEIGHT = 240; // pixels of the graph
const SIDES = ["front", "front right", "right", "rear right", "rear", "rear left", "left", "front left"];
const [INNER, OUTER, LABELS] = [46, 100, 74]; // radii
const GAP = 1.6; // degrees left free on either side of a field

/** A point on a circle; 0 degrees is below, where the viewer stands, and they go to the viewer's right.
 * @param {number} degrees @param {number} radius */
function around(degrees, radius) {
  const angle = (degrees * Math.PI) / 180;
  return [Math.sin(angle) * radius, Math.cos(angle) * radius].map((number) => number.toFixed(2)).join(" ");
}

/** @param {number} middle in degrees */
function field(middle) {
  const [from, to] = [middle - 22.5 + GAP, middle + 22.5 - GAP];
  const out = `M${around(from, OUTER)}A${OUTER} ${OUTER} 0 0 0 ${around(to, OUTER)}`;
  return `${out}L${around(to, INNER)}A${INNER} ${INNER} 0 0 1 ${around(from, INNER)}Z`;
}

/** @param {string} side @param {number} index */
function radio(side, index) {
  const [x, y] = around(index * 45, LABELS).split(" ");
  const words = t(side).split(" "); // on two lines where a language has two words
  const lines = words.map((word, i) => svg("tspan", { x, dy: i ? "1.1em" : `${(1 - words.length) * 0.55}em` }, word));
  const label = svg("text", { x, y, "text-anchor": "middle", "dominant-baseline": "central" }, ...lines);
  const attributes = { role: "radio", "aria-label": t(side), "data-side": side, class: "joyimage-side" };
  return svg("g", attributes, svg("path", { d: field(index * 45) }), label);
}

/** @param {import("./types").GraphNode} node @param {import("./types").GraphNode} [host] a node around it that is to have the view */
export function dialView(node, host = node) {
  const sides = SIDES.map(radio);
  const picture = svg("image", { x: -40, y: -40, width: 80, height: 80, preserveAspectRatio: "xMidYMid slice" });
  set(picture, { style: "clip-path: circle(40px at center)" });
  const middle = svg("circle", { r: 40, class: "joyimage-card" });
  const drawing = svg("svg", { viewBox: "-104 -104 208 208" }, middle, picture, ...sides);
  set(drawing, { role: "radiogroup", "aria-label": t("dial") });
  const stage = html("div", { class: "joyimage-stage joyimage-dial" }, drawing);
  const element = html("div", {}, stage);

  /** @param {string} side */
  const choose = (side) => {
    assign(node, "view", side);
    look();
  };
  sides.forEach((element, i) => {
    element.addEventListener("pointerdown", (event) => event.button === 0 && event.stopPropagation());
    element.addEventListener("click", () => {
      choose(SIDES[i]);
      element.focus({ preventScroll: true });
      remember();
    });
    keys(element, (key) => {
      const step = Number(["ArrowRight", "ArrowUp"].includes(key)) - Number(["ArrowLeft", "ArrowDown"].includes(key));
      const next = (i + step + SIDES.length) % SIDES.length;
      if (step === 0 && key !== " " && key !== "Enter") return false;
      choose(SIDES[next]);
      sides[next].focus({ preventScroll: true });
      return true;
    });
  });

  const look = follow(host, () => ({ view: value(node, "view"), source: subject(node), taken: decided(node, ["view"]) }), ({ view, source, taken }) => {
    shade(element, taken);
    set(picture, { href: source });
    sides.forEach((element, i) => {
      const chosen = SIDES[i] === view;
      set(element, { "aria-checked": String(chosen), tabindex: chosen ? 0 : -1 });
    });
  });
  return mount(host, "dial", element, HEIGHT);
}
