/** What decides a node's inputs: its own widgets, those on the node of a subgraph around it, or other nodes. */
import { app } from "../../scripts/app.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {import("./types").Graph} Graph */
/** @typedef {import("./types").Widget} Widget */
/** @typedef {{node: GraphNode, slot: number}} Origin */

const SUBGRAPH_INPUT = "-10"; // the id of the node that stands for a subgraph's inputs; a number or a text, by version

/** All nodes, those in subgraphs among them. @param {Graph} graph @returns {GraphNode[]} */
function everywhere(graph) {
  return graph.nodes.flatMap((node) => (node.subgraph ? [node, ...everywhere(node.subgraph)] : [node]));
}

/** The node, if there is one, that stands for a subgraph. @param {Graph} graph */
const around = (graph) => everywhere(app.rootGraph).find(({ subgraph }) => subgraph === graph);

/** The name by which the page keeps what a node's last run gave. @param {GraphNode} node */
export const locator = (node) => (node.graph === app.rootGraph ? String(node.id) : `${node.graph?.id}:${node.id}`);

/** The name by which the server knows a node: its number after those of the subgraphs around it. @param {GraphNode} node @returns {string} */
export function executionId(node) {
  const outside = node.graph === app.rootGraph ? undefined : around(node.graph);
  return outside ? `${executionId(outside)}:${node.id}` : String(node.id);
}

/** The link into an input. The node's own property is deprecated, and its method means another on a subgraph's node.
 * @param {GraphNode} node @param {number} input */
const linkInto = (node, input) =>
  [...node.graph.links.values()].find((link) => link.target_id === node.id && link.target_slot === input);

/** @param {GraphNode} node @param {string} name */
export const inputNamed = (node, name) => node.inputs.findIndex((input) => input.name === name);

/**
 * What an input is connected to, through reroutes and the walls of subgraphs.
 * @param {GraphNode} node @param {number} input @returns {Origin | null}
 */
export function origin(node, input) {
  const link = linkInto(node, input);
  if (!link) return null;
  if (String(link.origin_id) === SUBGRAPH_INPUT) {
    const outside = around(node.graph);
    return outside ? origin(outside, link.origin_slot) : null;
  }
  const source = node.graph.getNodeById(link.origin_id);
  if (!source) return null;
  if (source.type === "Reroute") return origin(source, 0);
  return source.subgraph ? inside(source, link.origin_slot) : { node: source, slot: link.origin_slot };
}

/** @param {GraphNode} outer @param {number} slot @returns {Origin | null} */
function inside(outer, slot) {
  const graph = /** @type {Graph} */ (outer.subgraph);
  const link = graph.getLink(graph.outputs[slot]?.linkIds?.[0]);
  const source = link && graph.getNodeById(link.origin_id);
  return source ? { node: source, slot: link.origin_slot } : null;
}

/** The nodes that an output is connected to. @param {GraphNode} node @param {number} slot @returns {GraphNode[]} */
export const targets = (node, slot) => node.getOutputNodes(slot) ?? [];

/**
 * The widget that decides an input: the node's own, or the one on the node of a subgraph that it was promoted to.
 * @param {GraphNode} node @param {string} name @returns {Widget | undefined} none where a connected node decides
 */
function decider(node, name) {
  const link = linkInto(node, inputNamed(node, name));
  if (!link) return node.widgets?.find((widget) => widget.name === name);
  const outside = String(link.origin_id) === SUBGRAPH_INPUT ? around(node.graph) : undefined;
  return outside && decider(outside, outside.inputs[link.origin_slot]?.name);
}

/** @param {GraphNode} node @param {string} name */
export const value = (node, name) =>
  (decider(node, name) ?? node.widgets?.find((widget) => widget.name === name))?.value;

/** Set another widget of the node as its own control would.
 * @param {GraphNode} node @param {string} name @param {string | number} to */
export function assign(node, name, to) {
  const widget = decider(node, name);
  if (!widget || widget.value === to) return;
  widget.value = to;
  widget.callback?.(to, app.canvas, node);
  app.canvas.setDirty(true, true);
}

/** The inputs that connected nodes decide, so that a view can neither show nor set them.
 * @param {GraphNode} node @param {string[]} names */
export const decided = (node, names) => names.filter((name) => !decider(node, name));
