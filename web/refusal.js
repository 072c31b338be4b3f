/** Why the server refused the last run because of a node's input, for as long as the input holds what it refused. */
import { app } from "../../scripts/app.js";
import { executionId } from "./graph.js";

/** @type {WeakMap<object, unknown>} what the input held when its error was first seen */
const refused = new WeakMap();

/** @param {import("./types").GraphNode} node @param {string} input @param {unknown} value what it holds now */
export function refusal(node, input, value) {
  const errors = app.lastNodeErrors?.[executionId(node)]?.errors ?? [];
  const error = errors.find(({ extra_info }) => extra_info?.input_name === input);
  if (!error) return "";
  if (!refused.has(error)) refused.set(error, value);
  if (refused.get(error) !== value) return "";
  const named = `${input} - `; // the server puts the input's name before the reason
  return (error.details?.startsWith(named) ? error.details.slice(named.length) : error.details) || error.message;
}
