/** The pack's page of ComfyUI's settings, and the values that nodes added by hand begin with because of it. */
import { app } from "../../scripts/app.js";

/** @typedef {import("./types").GraphNode} GraphNode */

const BASE_SIZE = "JoyImage.BaseSize";
const REMEMBER = "JoyImage.RememberFiles";
const SIZED = ["JoyImageEncodePrompt", "JoyImageEdit", "JoyImageBestOf", "JoyImageReason"];
/** @type {Record<string, string>} the loaders' inputs that name a file */
const FILES = { JoyImageLoadEncoder: "encoder", JoyImageLoadMMDiT: "model", JoyImageLoadVAE: "vae" };

/** Names and tooltips in other languages are in locales/. */
export const settings = [
  {
    id: BASE_SIZE,
    category: ["JoyImage", "New nodes", "Base size"],
    name: "Base size of new nodes",
    tooltip: "What base_size begins with in Encode Prompt, Edit, Best of and Reason nodes that you add.",
    type: "combo",
    options: ["auto", "64", "256", "512", "768", "1024", "exact"],
    defaultValue: "auto",
  },
  {
    id: REMEMBER,
    category: ["JoyImage", "New nodes", "Files"],
    name: "Remember the loaders' files",
    tooltip: "A loader that you add begins with the file last chosen in one of its kind, in this browser.",
    type: "boolean",
    defaultValue: true,
  },
];

/** @param {string} id */
const setting = (id) => app.extensionManager.setting.get(id);

/** @param {string} kind */
const memory = (kind) => `JoyImage.file.${kind}`;

/** Let a node begin as the settings say, unless it is part of a graph that is being opened.
 * @param {GraphNode} node @param {string} kind */
export function begin(node, kind) {
  const opening = /** @type {{configuringGraph?: boolean}} */ (app).configuringGraph;
  if (SIZED.includes(kind) && !opening) offer(node, "base_size", setting(BASE_SIZE));
  if (!(kind in FILES)) return;
  if (!opening && setting(REMEMBER)) offer(node, FILES[kind], window.localStorage.getItem(memory(kind)));
  rememberFile(node, kind);
}

/** Set a choice to a value, if it is one of those that it has.
 * @param {GraphNode} node @param {string} name @param {string | null} value */
function offer(node, name, value) {
  const widget = node.widgets?.find((each) => each.name === name);
  if (widget?.options.values.includes(value)) widget.value = value;
}

/** @param {GraphNode} node @param {string} kind */
function rememberFile(node, kind) {
  const widget = node.widgets?.find(({ name }) => name === FILES[kind]);
  if (!widget) return;
  const { callback } = widget;
  widget.callback = function (value, ...more) {
    if (setting(REMEMBER)) window.localStorage.setItem(memory(kind), String(value));
    callback?.call(this, value, ...more);
  };
}
