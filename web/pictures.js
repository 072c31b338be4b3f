/** The pictures that a widget draws on: found through the graph's links, before or after a run. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { inputNamed, locator, origin, targets } from "./graph.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").SavedImage} SavedImage */
/** @typedef {import("./graph.js").Origin} Origin */

const EXAMPLES = new URL("./examples/", import.meta.url);
const PHOTOGRAPH = "example: "; // before the name of one of the pack's, where a file of the user's might stand

/** @type {Map<string, Record<string, string>>} the pack's drawn scenes: files and words by name */
const scenes = new Map();

/** Learn what scenes there are. */
export async function knowScenes() {
  const reply = await window.fetch(new URL("scenes.json", EXAMPLES));
  for (const scene of await reply.json()) scenes.set(scene.name, scene);
}

/** @param {string} name */
export const sceneNamed = (name) => scenes.get(name);

/** @param {SavedImage} image */
export const address = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/** What a node's last run gave to show. @param {GraphNode} node */
const outputs = (node) => app.nodeOutputs[locator(node)];

/** What Locate said of the picture that comes out of a node: the last box found on it.
 * @param {Origin | null} source @returns {string} "what: {box}", or nothing */
export function located(source) {
  const found = source ? targets(source.node, source.slot).filter(({ type }) => type === "JoyImageLocate") : [];
  return found.flatMap((node) => outputs(node)?.text?.[0] ?? []).at(-1) ?? "";
}

/** The addresses of the pictures that a node shows: those of its last run, or of the file it loads.
 * @param {GraphNode} node @returns {string[]} */
export function shown(node) {
  /** @param {string} name */
  const chosen = (name) => String(node.widgets?.find((widget) => widget.name === name)?.value ?? "");
  if (node.type === "JoyImageExampleScene") {
    const scene = scenes.get(chosen("scene"));
    return (scene ? [scene] : [...scenes.values()]).map(({ file }) => new URL(file, EXAMPLES).href); // one, or "all"
  }
  const file = /^(JoyImage)?LoadImage$/.test(node.type) && chosen("image");
  if (file) return [file.startsWith(PHOTOGRAPH) ? photograph(file.slice(PHOTOGRAPH.length)) : loaded(file)];
  const images = outputs(node)?.images;
  if (images?.length) return images.map(address);
  // Nodes 2.0 can put what it showed in the graph before on the node that has the same id in this one.
  const late = app.extensionManager.setting.get("Comfy.VueNodes.Enabled");
  return late ? [] : (node.imgs ?? []).map((image) => image.src);
}

/** @param {string} name */
const photograph = (name) => new URL(`${encodeURIComponent(name)}.jpg`, EXAMPLES).href;

/** @param {string} file as LoadImage names it: "folder/name.png [output]" */
function loaded(file) {
  const [, path, type] = /** @type {RegExpMatchArray} */ (file.match(/^(.*?)(?: \[(input|output|temp)\])?$/));
  const cut = path.lastIndexOf("/");
  return address({ filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type: type ?? "input" });
}

/** The address of the picture that comes out of a node, if it or a preview beside us shows it.
 * @param {Origin | null} source @returns {string | undefined} */
export function pictureOf(source) {
  if (!source) return undefined;
  const previews = targets(source.node, source.slot).filter(({ type }) => /^(Preview|Save)Image$/.test(type));
  return [source.node, ...previews].flatMap(shown)[0];
}

/**
 * The picture that a node's instruction is about: its own image, or the first image of the prompt that takes it. Where
 * that is not there to be seen, what it was made from.
 * @param {GraphNode} node @returns {string | undefined}
 */
export function subject(node) {
  const own = inputNamed(node, "image");
  if (own >= 0) {
    const picture = seenThrough(origin(node, own));
    if (picture) return picture;
  }
  for (const target of targets(node, 0)) {
    const picture = seenThrough(origin(target, inputNamed(target, "images.image0")));
    if (picture) return picture;
  }
  return undefined;
}

/** The picture of a node or, where that shows none yet, of what it was made from.
 * @param {Origin | null} source @returns {string | undefined} */
function seenThrough(source) {
  while (source) {
    const picture = pictureOf(source);
    if (picture) return picture;
    const input = source.node.inputs.findIndex(({ type }) => type === "IMAGE");
    source = origin(source.node, input);
  }
  return undefined;
}

/** The pictures at the end of a node's line: the first node down from it that shows more than one.
 * @param {GraphNode} node @returns {string[]} */
export function results(node) {
  const seen = new Set([node]);
  for (const next of seen) {
    const images = next === node ? [] : shown(next);
    if (images.length > 1) return images;
    next.outputs.forEach((_, slot) => targets(next, slot).forEach((target) => seen.add(target)));
  }
  return [];
}
