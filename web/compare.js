/** Before and after: two pictures, one over the other, and a line to drag between them. */
import { locator } from "./graph.js";
import { address } from "./pictures.js";
import { app } from "../../scripts/app.js";
import { choices, clamp, drag, follow, html, keys, mount, set, within } from "./shared.js";
import { t } from "./text.js";

const HEIGHT = 280; // pixels of the graph
const STEP = 0.05; // of the width, for the arrow keys

/** @typedef {{before: string[], after: string[]}} Pictures */

/** @param {import("./types").GraphNode} node */
export function compareView(node) {
  const before = html("img", { alt: t("before"), draggable: "false" });
  const after = html("img", { alt: t("after"), draggable: "false" });
  const line = html("div", { class: "joyimage-divider" });
  const names = ["before", "after"].map((name) => html("span", { class: `joyimage-name joyimage-${name}` }, t(name)));
  const hint = html("div", { class: "joyimage-hint" }, t("compare_empty"));
  const stage = html("div", { class: "joyimage-stage joyimage-compare", tabindex: 0, role: "slider" });
  stage.append(after, before, line, ...names, hint);
  set(stage, { "aria-label": t("compare"), "aria-valuemin": 0, "aria-valuemax": 100 });
  const element = html("div", {}, stage);

  let split = 0.5; // the share of the width that shows the picture before

  /** @param {number} share */
  function divide(share) {
    split = clamp(share, 0, 1);
    stage.style.setProperty("--joyimage-split", `${split * 100}%`);
    set(stage, { "aria-valuenow": Math.round(split * 100) });
  }

  drag(stage, (press) => {
    stage.focus({ preventScroll: true });
    const kept = split;
    /** @param {MouseEvent} event */
    const follow = (event) => divide(within(event, stage).x);
    follow(press);
    return { move: follow, cancel: () => divide(kept) };
  });
  keys(stage, (key) => {
    const step = Number(key === "ArrowRight") - Number(key === "ArrowLeft");
    if (!step) return false;
    divide(split + step * STEP);
    return true;
  });

  /** @param {Pictures} pictures @param {number} index */
  function show(pictures, index) {
    const [first, second] = [pictures.before, pictures.after].map((list) => list[Math.min(index, list.length - 1)]);
    set(before, { src: first });
    set(after, { src: second });
    element.classList.toggle("joyimage-none", !first || !second);
  }

  follow(node, () => made(node), (pictures) => {
    const count = Math.max(pictures.before.length, pictures.after.length);
    const pages = Array.from({ length: count }, (_, i) => /** @type {[string, number]} */ ([String(i + 1), i]));
    const row = choices(t("after"), pages, (index) => {
      show(pictures, index);
      row.mark((page) => page === index);
    });
    row.mark((page) => page === 0);
    element.replaceChildren(stage, ...(count > 1 ? [row.element] : []));
    show(pictures, 0);
  });
  divide(split);
  return mount(node, "view", element, HEIGHT);
}

/** What the node's last run left. @param {import("./types").GraphNode} node @returns {Pictures} */
function made(node) {
  const output = app.nodeOutputs[locator(node)];
  return { before: (output?.before ?? []).map(address), after: (output?.after ?? []).map(address) };
}
