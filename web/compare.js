/** Before and after: two pictures, one over the other, parted by a line that follows the mouse, or shown in turn. */
import { locator } from "./graph.js";
import { address } from "./pictures.js";
import { app } from "../../scripts/app.js";
import { button, choices, clamp, drag, follow, html, keys, mount, set, within } from "./shared.js";
import { t } from "./text.js";

const HEIGHT = 280; // pixels of the graph
const STEP = 0.05; // of the width, for the arrow keys
const SAID = 1200; // milliseconds for which a button says what it did
const PROPERTY = "Compare by"; // of the node: how it compares, which is saved with the graph
const CLICK = "click"; // its value for pictures in turn; all others are for the line

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
  const way = choices(t("compare_by"), [[t("slide"), ""], [t("click"), CLICK]], (to) => {
    if (to) node.properties[PROPERTY] = to;
    else delete node.properties[PROPERTY];
    compareBy(to);
  });
  const bar = html("div", { class: "joyimage-bar" }, way.element, takeaway(after));
  const element = html("div", {}, stage, bar);

  let split = 0.5; // the share of the width that shows the picture before
  let inTurn = false;

  /** @param {number} share */
  function divide(share) {
    split = clamp(share, 0, 1);
    stage.style.setProperty("--joyimage-split", `${split * 100}%`);
    set(stage, { "aria-valuenow": Math.round(split * 100), "data-shown": split > 0.5 ? "before" : "after" });
  }

  /** @param {unknown} to */
  function compareBy(to) {
    inTurn = to === CLICK;
    way.mark((each) => (each === CLICK) === inTurn);
    stage.classList.toggle("joyimage-in-turn", inTurn);
    set(stage, { title: inTurn ? t("click_hint") : null });
    divide(inTurn ? 0 : 0.5);
  }

  /** @param {MouseEvent} event */
  const toPointer = (event) => divide(within(event, stage).x);

  drag(stage, (press) => {
    stage.focus({ preventScroll: true });
    const kept = split;
    if (inTurn) {
      const release = () => divide(0);
      divide(1);
      return { move: () => {}, end: release, cancel: release };
    }
    toPointer(press);
    return { move: toPointer, cancel: () => divide(kept) };
  });
  stage.addEventListener("pointermove", (event) => {
    if (!inTurn && event.pointerType !== "touch" && event.buttons === 0) toPointer(event);
  });
  keys(stage, (key) => {
    const step = Number(key === "ArrowRight") - Number(key === "ArrowLeft");
    if (step) divide(split + step * (inTurn ? 1 : STEP));
    else if (inTurn && (key === " " || key === "Enter")) divide(1 - split);
    else return false;
    return true;
  });

  /** @param {Pictures} pictures @param {number} index */
  function show(pictures, index) {
    const [first, second] = [pictures.before, pictures.after].map((list) => list[Math.min(index, list.length - 1)]);
    set(before, { src: first });
    set(after, { src: second });
    element.classList.toggle("joyimage-none", !first || !second);
  }

  follow(node, () => node.properties[PROPERTY] ?? "", compareBy);
  follow(node, () => made(node), (pictures) => {
    const count = Math.max(pictures.before.length, pictures.after.length);
    const pages = Array.from({ length: count }, (_, i) => /** @type {[string, number]} */ ([String(i + 1), i]));
    const row = choices(t("after"), pages, (index) => {
      show(pictures, index);
      row.mark((page) => page === index);
    });
    row.mark((page) => page === 0);
    element.replaceChildren(stage, ...(count > 1 ? [row.element] : []), bar);
    show(pictures, 0);
  });
  compareBy("");
  return mount(node, "view", element, HEIGHT);
}

/** What the node's last run left. @param {import("./types").GraphNode} node @returns {Pictures} */
function made(node) {
  const output = app.nodeOutputs[locator(node)];
  return { before: (output?.before ?? []).map(address), after: (output?.after ?? []).map(address) };
}

/** Buttons that save and copy a picture. @param {HTMLImageElement} picture */
function takeaway(picture) {
  const save = button(t("save"), () => download(picture), { title: t("save_after"), "aria-label": t("save_after") });
  const copy = button(t("copy"), act, { title: t("copy_after"), "aria-label": t("copy_after") });
  copy.hidden = !window.navigator.clipboard?.write; // as where the page came over plain http

  async function act() {
    const written = window.navigator.clipboard.write([new window.ClipboardItem({ "image/png": png(picture) })]);
    copy.textContent = await written.then(() => t("copied"), () => t("copy_failed"));
    window.setTimeout(() => (copy.textContent = t("copy")), SAID);
  }
  return html("div", { class: "joyimage-takeaway" }, save, copy);
}

/** @param {HTMLImageElement} picture */
function download({ src }) {
  const link = html("a", { href: src, download: new URL(src).searchParams.get("filename") });
  document.body.append(link);
  link.click();
  link.remove();
}

/** @param {HTMLImageElement} picture @returns {Promise<Blob>} */
function png(picture) {
  const canvas = html("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
  canvas.getContext("2d")?.drawImage(picture, 0, 0);
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail()), "image/png"));
}
