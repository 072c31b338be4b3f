/**
 * What a node said: an answer, boxes, a rewritten prompt, a size. It grows while the node runs, and stays.
 *
 * Some versions of the frontend show a growing text themselves and clear it when the run ends, others keep it: theirs is
 * taken off our nodes, so that there is one text. A page that was loaded anew has forgotten all runs: the server's
 * history knows them.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { executionId, locator } from "./graph.js";
import { button, follow, html, mount, set } from "./shared.js";
import { t } from "./text.js";

/** @typedef {import("./types").GraphNode} GraphNode */

const HEIGHT = 90; // pixels of the graph
const COPIED = 1200; // milliseconds for which the button says so
const PREVIEW = "$$node-text-preview"; // the frontend's own widget for a growing text
const RUNS = 20; // of the history, from the newest, that are searched after a reload

/** @type {Map<string, string>} what running nodes have said so far */
const growing = new Map();
/** @type {Map<string, string>} what nodes said before the page was loaded */
const earlier = new Map();

/** @param {string} workflow @param {string} node @param {string} type */
const key = (workflow, node, type) => [workflow, node, type].join("\n");

/** @param {GraphNode} node @param {GraphNode} [host] a node around it that is to have the view */
export function answerView(node, host = node) {
  const text = html("div", { class: "joyimage-answer", tabindex: 0, role: "log", "aria-label": t("answer"), "data-capture-wheel": "true" });
  const copy = button(t("copy"), () => {
    window.navigator.clipboard?.writeText(text.textContent ?? "").then(() => {
      copy.textContent = t("copied");
      window.setTimeout(() => (copy.textContent = t("copy")), COPIED);
    });
  });
  copy.classList.add("joyimage-copy");
  const element = html("div", { class: "joyimage-said" }, text, copy);
  for (const name of ["pointerdown", "pointermove", "keydown", "copy"]) {
    text.addEventListener(name, (event) => event.stopPropagation()); // selecting and copying is not for the graph
  }
  element.addEventListener("wheel", (event) => {
    if (text.scrollHeight > text.clientHeight) event.stopImmediatePropagation();
  });
  const said = () => {
    const id = executionId(node);
    const now = growing.get(id) ?? app.nodeOutputs[locator(node)]?.text?.join("\n");
    return now ?? earlier.get(key(app.rootGraph.id, id, node.type)) ?? "";
  };
  let height = 0; // of the node without the frontend's own text
  const look = () => {
    const count = previews(node).length;
    if (!count) height = node.size[1];
    return { said: said(), count };
  };
  follow(host, look, ({ said, count }) => {
    text.textContent = said;
    set(text, { "data-empty": said ? null : t("answer_empty") });
    copy.hidden = !said;
    if (count) withoutPreviews(node, height);
  });
  return mount(host, "text", element, HEIGHT);
}

/** @param {GraphNode} node */
const previews = (node) => (node.widgets ?? []).filter(({ name }) => name === PREVIEW);

/** Take them off, and the room that the frontend made for them: else the node would lie over what is below.
 * @param {GraphNode} node @param {number} height */
function withoutPreviews(node, height) {
  for (const widget of previews(node)) node.removeWidget(widget);
  if (height) node.setSize([node.size[0], Math.max(height, node.computeSize()[1])]);
}

/** Hear what nodes say while they run. */
export function listen() {
  api.addEventListener("progress_text", ({ detail }) => {
    if (detail?.nodeId && typeof detail.text === "string") growing.set(String(detail.nodeId), detail.text);
  });
  api.addEventListener("executed", ({ detail }) => growing.delete(String(detail?.display_node ?? detail?.node)));
  for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
    api.addEventListener(end, () => growing.clear());
  }
}

/** Ask the server what nodes said in its last runs. */
export async function remember() {
  const reply = await api.fetchApi(`/history?max_items=${RUNS}`);
  if (!reply.ok) return;
  /** @type {{prompt: any[], outputs: Record<string, {text?: string[]}>}[]} from the oldest on */
  const runs = Object.values(await reply.json());
  for (const { prompt, outputs } of runs) {
    const workflow = prompt[3]?.extra_pnginfo?.workflow?.id;
    for (const [node, { text }] of Object.entries(outputs)) {
      const type = prompt[2][node]?.class_type;
      if (workflow && type && text) earlier.set(key(workflow, node, type), text.join("\n"));
    }
  }
}
