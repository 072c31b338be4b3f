/**
 * Views on the node that stands for a subgraph: those of the nodes inside that ask for it by a property. The frontend
 * shows there what it can promote, which is numbers and texts.
 */

/** @typedef {import("./types").GraphNode} GraphNode */

const PROPERTY = "Shown outside";

/** @param {GraphNode} host @param {Record<string, (node: GraphNode, host: GraphNode) => unknown>} views by node
 * @returns {boolean} whether there are any */
export function outside(host, views) {
  const shown = (host.subgraph?.nodes ?? []).filter(({ type, properties }) => type in views && properties[PROPERTY]);
  for (const node of shown) views[node.type](node, host);
  return shown.length > 0;
}
