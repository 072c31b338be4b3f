/** The pictures that a widget draws on: found through the graph's links, before or after a run. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").SavedImage} SavedImage */
/** @typedef {{node: GraphNode, slot: number}} Origin */

const SUBGRAPH_INPUT = "-10"; // the id of the node that stands for a subgraph's inputs; a number or a text, by version

/** @param {SavedImage} image */
export const address = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/** All nodes, those in subgraphs among them.
 * @param {import("./types").Graph} graph @returns {GraphNode[]} */
function everywhere(graph) {
  return graph.nodes.flatMap((node) => (node.subgraph ? [node, ...everywhere(node.subgraph)] : [node]));
}

/**
 * What an input is connected to, through reroutes and the walls of subgraphs.
 * @param {GraphNode} node @param {number} input @returns {Origin | null}
 */
export function origin(node, input) {
  const link = node.graph.getLink(node.inputs[input]?.link);
  if (!link) return null;
  if (String(link.origin_id) === SUBGRAPH_INPUT) {
    const outside = everywhere(app.rootGraph).find((candidate) => candidate.subgraph === node.graph);
    return outside ? origin(outside, link.origin_slot) : null;
  }
  const source = node.graph.getNodeById(link.origin_id);
  if (!source) return null;
  if (source.type === "Reroute") return origin(source, 0);
  return source.subgraph ? inside(source, link.origin_slot) : { node: source, slot: link.origin_slot };
}

/** @param {GraphNode} outer @param {number} slot @returns {Origin | null} */
function inside(outer, slot) {
  const graph = /** @type {import("./types").Graph} */ (outer.subgraph);
  const link = graph.getLink(graph.outputs[slot]?.linkIds?.[0]);
  const source = link && graph.getNodeById(link.origin_id);
  return source ? { node: source, slot: link.origin_slot } : null;
}

/** The nodes that an output is connected to.
 * @param {GraphNode} node @param {number} slot @returns {GraphNode[]} */
export function targets(node, slot) {
  const links = (node.outputs[slot]?.links ?? []).map((id) => node.graph.getLink(id));
  return links.flatMap((link) => (link && node.graph.getNodeById(link.target_id)) || []);
}

/** The addresses of the pictures that a node shows: those of its last run, or of the file it loads.
 * @param {GraphNode} node @returns {string[]} */
export function shown(node) {
  const file = node.type === "LoadImage" && node.widgets?.find(({ name }) => name === "image")?.value;
  if (typeof file === "string" && file) return [loaded(file)];
  const key = node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`;
  const images = app.nodeOutputs[key]?.images;
  if (images?.length) return images.map(address);
  return (node.imgs ?? []).map((image) => image.src);
}

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

/** @param {GraphNode} node @param {string} name */
export const inputNamed = (node, name) => node.inputs.findIndex((input) => input.name === name);

/**
 * The picture that a node's instruction is about: the first image of the prompt that takes it. Where that is not
 * there to be seen, what it was made from.
 * @param {GraphNode} node @returns {string | undefined}
 */
export function subject(node) {
  for (const target of targets(node, 0)) {
    let source = origin(target, inputNamed(target, "images.image0"));
    while (source) {
      const picture = pictureOf(source);
      if (picture) return picture;
      source = origin(
        source.node,
        source.node.inputs.findIndex(({ type }) => type === "IMAGE"),
      );
    }
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
